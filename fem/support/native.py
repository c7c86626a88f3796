"""C code made at run time: compiled once on a machine, kept in a folder, called without Python's lock.

Libraries lie in `$RITZ_CACHE`, else in `ritz` of the user's cache folder. Their names say everything that they depend
on: the code, the compiler, its options and the processor.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fem.support import compilation

WORTH = 2**24  # numbers that a function has read before it is compiled: as much work as compiling it
OPTIONS = ["-fno-math-errno", "-fno-trapping-math", "-ftree-vectorize", "-shared", "-fPIC", "-x", "c", "-"]
NATIVE, THREADS = "-march=native", "-fopenmp"
# Elementary functions of several numbers at once come from the GNU C library; compilers know more or fewer options.
ATTEMPTS = [[NATIVE, THREADS, "-DVECTOR_FUNCTIONS", "-Wl,-z,defs", "-lmvec"], [NATIVE, THREADS], [NATIVE], []]
LONG = 800  # lines that are compiled with fewer passes: it takes a third of the time, and the code is as fast

_loaded: dict[str, Callable[..., Any] | None] = {}
_work: Counter[str] = Counter()


def native(source: str, work: int) -> Callable[..., Any] | None:
    """The function `run` of a C source, if it is there, or if it is time to compile it (see `fem.compilation`).

    Args:
        work: how many numbers the call is about to read.
    """
    policy = compilation.policy()
    if policy == "never" or sys.platform == "win32":
        return None
    if source not in _loaded:
        path = library(source)
        _work[source] += work
        if policy == "auto" and _work[source] < WORTH and not path.exists():
            return None
        _loaded[source] = load(source, path)
    return _loaded[source]


def load(source: str, path: Path) -> Callable[..., Any] | None:
    """The function from its library, which is made if it is not there or not good."""
    failure = None
    for attempt in range(2):
        if (attempt or not path.exists()) and not build(source, path):
            return None
        try:
            return ctypes.CDLL(str(path)).run
        except (OSError, AttributeError) as error:
            failure = error
    compilation.failed(f"a compiled library cannot be loaded: {failure}")
    return None


def build(source: str, path: Path) -> bool:
    """Compile, and move the library into place when it is whole."""
    compiler = find_compiler()
    if compiler is None:
        compilation.missing("C", "Install gcc or clang")
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as made:
            return run_compiler(compiler, source, Path(made) / "library.so", path)
    except OSError as error:
        compilation.failed(
            f"compiled code cannot be kept ({error}); let `RITZ_CACHE` name a folder that can be written to"
        )
        return False


def run_compiler(compiler: str, source: str, made: Path, path: Path) -> bool:
    level, message = "-O2" if source.count("\n") < LONG else "-O1", ""
    for options in ATTEMPTS:
        if sys.platform == "darwin" and THREADS in options:
            continue  # another OpenMP than PyTorch's in one process would end it
        command = [compiler, level, *OPTIONS, "-o", str(made), *options, "-lm"]
        done = subprocess.run(command, input=source, text=True, capture_output=True)
        if done.returncode == 0:
            os.replace(made, path)
            return True
        message = done.stderr
    compilation.failed(f"{compiler} said: {message.strip()[:500]}")
    return False


@cache
def find_compiler() -> str | None:
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@cache
def machine() -> str:
    """What compiled code depends on besides its source."""
    info, lines = Path("/proc/cpuinfo"), set()
    if info.exists():
        lines = {line for line in info.read_text().splitlines() if line.startswith(("model name", "flags", "Features"))}
    compiler = os.stat(find_compiler() or sys.executable)
    known = (platform.processor(), platform.machine(), platform.libc_ver(), compiler.st_size, compiler.st_mtime_ns)
    return repr((known, sorted(lines), OPTIONS, ATTEMPTS))


@cache
def name_of(source: str) -> str:
    return f"{hashlib.sha256((machine() + source).encode()).hexdigest()[:32]}.so"


def library(source: str) -> Path:
    return folder() / name_of(source)


def folder() -> Path:
    if "RITZ_CACHE" in os.environ:
        return Path(os.environ["RITZ_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ritz"
