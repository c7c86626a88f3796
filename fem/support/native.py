"""Libraries made of C code at run time: compiled once on a machine, kept in a folder, loaded when they pay.

They lie in `$RITZ_CACHE`, else in `ritz` of the user's cache folder. Their names say everything that they depend on:
the code, the compiler, its options and the processor. `fem.support.c_function` calls what is in them.

What is loaded runs, so a library is loaded only from a folder that nobody else may write to, and only as it was put
there: it ends with the digest of its name and of what comes before, which the dynamic linker does not look at. One that
is cut off, altered or somebody else's is made again.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from fem.support import compilation
from fem.support.cache import Store
from fem.support.compilation import current

WORTH = 2**24  # numbers that a function has read before it is compiled: as much work as compiling it
OPTIONS = ["-fno-math-errno", "-fno-trapping-math", "-ftree-vectorize", "-shared", "-fPIC", "-x", "c", "-"]
NATIVE, THREADS = "-march=native", "-fopenmp"
# Elementary functions of several numbers at once come from the GNU C library; compilers know more or fewer options.
ATTEMPTS = [[NATIVE, THREADS, "-DVECTOR_FUNCTIONS", "-Wl,-z,defs", "-lmvec"], [NATIVE, THREADS], [NATIVE], []]
LIMIT = 120.0  # seconds after which a compiler is given up
LONG = 800  # lines that are compiled with fewer passes: it takes a third of the time, and the code is as fast

_libraries = Store("libraries of C code", 1024)
_hanging = Store("compilers that did not return", 1)


class Library:
    """The function `run` of a C source, once it is time to compile it (see `fem.support.compilation`)."""

    def __init__(self, source: str):
        self.source, self.work = source, 0
        self.run: Callable[..., Any] | None = None
        self.tried, self.lock = False, Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return library, (self.source,)  # copies are the same one

    def ready(self, work: int) -> bool:
        """Whether `run` is there for a call that is about to read so many numbers."""
        policy = current.when
        if policy == "never" or self.tried:
            return policy != "never" and self.run is not None
        if sys.platform != "win32":
            self.work += work
            if policy == "auto" and self.work < WORTH and not self.there:
                return False
            self.make()
        return self.run is not None

    def make(self) -> None:
        with self.lock:  # another thread may be compiling it
            if not self.tried:
                self.run, self.tried = self.load(), True

    def begin(self, work: int) -> None:
        """Compile beside other work what is about to read so many numbers, if that pays; `ready` waits for it."""
        pays = current.when == "always" or (current.when != "never" and work >= WORTH)
        if sys.platform != "win32" and pays and not self.tried and not self.there:
            Thread(target=self.make).start()

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
        path = Path(os.path.realpath(self.path.parent)) / self.name
        try:
            make_folder(path.parent)
            other = changeable(path.parent)
        except OSError as error:
            not_kept(error)
            return None
        if other is not None:
            not_trusted(other)
            return None
        failure = None
        for attempt in range(2):
            if (attempt or not intact(path)) and not build(self.source, path):
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
    if _hanging:
        return False
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as room:
            made = run_compiler(compiler, source, Path(room))
            if made is None:
                return False
            content = made.read_bytes()
            made.write_bytes(content + digest(path.name, content))
            made.chmod(0o755)
            os.replace(made, path)
            return True
    except OSError as error:
        not_kept(error)
        return False


def run_compiler(compiler: str, source: str, room: Path) -> Path | None:
    """The library in an empty folder; None, and a warning, if there is none after all attempts."""
    level, message = "-O2" if source.count("\n") < LONG else "-O1", ""
    made, given, said = (room / name for name in ("library.so", "source.c", "said"))
    given.write_text(source, encoding="utf-8")
    for options in ATTEMPTS:
        if sys.platform == "darwin" and THREADS in options:
            continue  # another OpenMP than PyTorch's in one process would end it
        command = [compiler, level, *OPTIONS, "-o", str(made), *options, "-lm"]
        try:
            code = run(command, given, said)
        except subprocess.TimeoutExpired:
            _hanging.put("first", compiler)
            compilation.failed(f"{compiler} did not return within {LIMIT:g} seconds, and is not asked again")
            return None
        except OSError as error:
            compilation.failed(f"{compiler} cannot be run ({error}); let `CC` name another compiler")
            return None
        if code == 0 and made.is_file() and made.stat().st_size:
            return made
        message = said.read_text(errors="replace").strip()[:500] or f"nothing, returned {code} and made no library"
    compilation.failed(f"{compiler} said: {message}")
    return None


def run(command: list[str], given: Path, said: Path) -> int:
    """What a command returns that reads one file and complains into another; it ends with all that it has started.

    Raises:
        subprocess.TimeoutExpired: not within the limit.
    """
    with given.open("rb") as text, said.open("wb") as complaints:
        process = subprocess.Popen(
            command, stdin=text, stdout=subprocess.DEVNULL, stderr=complaints, start_new_session=True
        )
        try:
            return process.wait(LIMIT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def intact(path: Path) -> bool:
    """Whether this is a library as it was put there, which nobody else may change."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or is_others(found):
            return False
        content = path.read_bytes()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return content[-size:] == digest(path.name, content[:-size])


def digest(name: str, content: bytes) -> bytes:
    """Of a library under its name, since one under the name of another would be called with the other's arguments."""
    return hashlib.sha256(name.encode() + content).digest()


def make_folder(path: Path) -> None:
    """A folder that nobody else may write to, with those above it."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(0o755, exist_ok=True)


def changeable(folder: Path) -> Path | None:
    """This folder or the first above it in which somebody else can put other things in the place of ours."""
    for at in (folder, *folder.parents):
        found = at.stat()
        kept = at != folder and found.st_mode & stat.S_ISVTX  # as in /tmp, where others cannot touch what is ours
        if is_others(found, stat.S_IWGRP | stat.S_IWOTH if not kept else 0):
            return at
    return None


def is_others(found: os.stat_result, writable: int = stat.S_IWGRP | stat.S_IWOTH) -> bool:
    """Whether a file belongs to neither us nor the system, or grants others to write."""
    return found.st_uid not in (os.geteuid(), 0, os.stat("/").st_uid) or bool(found.st_mode & writable)


def not_kept(error: OSError) -> None:
    compilation.failed(f"compiled code cannot be kept ({error}); let `RITZ_CACHE` name a folder that can be written to")


@cache
def not_trusted(folder: Path) -> None:
    compilation.failed(
        f"others can write to {folder}, so that compiled code in it might be theirs; "
        f"say `chmod go-w {folder}` if it is yours, or let `RITZ_CACHE` name a folder of your own"
    )


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
    chosen = os.environ.get("RITZ_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ritz"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"ritz-{os.geteuid()}"
