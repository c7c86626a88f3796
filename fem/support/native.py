"""Libraries made of C code at run time: compiled once on a machine, kept in a folder, loaded when they pay.

They lie in `$RITZ_CACHE`, else in `ritz` of the user's cache folder. Their names say everything that they depend on:
the code, the compiler, its options and the processor. `fem.support.c_function` calls what is in them.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from fem.support import compilation
from fem.support.cache import Store
from fem.support.compilation import current

WORTH = 2**24  # numbers that a function has read before it is compiled: as much work as compiling it
OPTIONS = ["-fno-math-errno", "-fno-trapping-math", "-ftree-vectorize", "-shared", "-fPIC", "-x", "c", "-"]
NATIVE, THREADS = "-march=native", "-fopenmp"
# Elementary functions of several numbers at once come from the GNU C library; compilers know more or fewer options.
ATTEMPTS = [[NATIVE, THREADS, "-DVECTOR_FUNCTIONS", "-Wl,-z,defs", "-lmvec"], [NATIVE, THREADS], [NATIVE], []]
LONG = 800  # lines that are compiled with fewer passes: it takes a third of the time, and the code is as fast

_libraries = Store("libraries of C code", 1024)


class Library:
    """The function `run` of a C source, once it is time to compile it (see `fem.support.compilation`)."""

    def __init__(self, source: str):
        self.source, self.work = source, 0
        self.run: Callable[..., Any] | None = None
        self.tried, self.lock = False, Lock()

    def ready(self, work: int) -> bool:
        """Whether `run` is there for a call that is about to read so many numbers."""
        policy = current.when
        if policy == "never" or self.tried:
            return policy != "never" and self.run is not None
        if sys.platform != "win32":
            self.work += work
            if policy == "auto" and self.work < WORTH and not self.there:
                return False
            with self.lock:  # another thread may be compiling it
                if not self.tried:
                    self.run, self.tried = self.load(), True
        return self.run is not None

    @cached_property
    def there(self) -> bool:
        """Whether somebody has compiled it before; looked up once."""
        return self.path.exists()

    @property
    def path(self) -> Path:
        return folder() / self.name

    @cached_property
    def name(self) -> str:
        return f"{hashlib.sha256((machine() + self.source).encode()).hexdigest()[:32]}.so"

    def load(self) -> Callable[..., Any] | None:
        """The function from the file, which is made if it is not there or not good."""
        failure, path = None, self.path
        for attempt in range(2):
            if (attempt or not path.exists()) and not build(self.source, path):
                return None
            try:
                return ctypes.CDLL(str(path)).run
            except (OSError, AttributeError) as error:
                failure = error
        compilation.failed(f"a compiled library cannot be loaded: {failure}")
        return None


def library(source: str) -> Library:
    """The library of a C source, one for all that have the same."""
    return _libraries.get(source, lambda: Library(source))


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


def folder() -> Path:
    if "RITZ_CACHE" in os.environ:
        return Path(os.environ["RITZ_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ritz"
