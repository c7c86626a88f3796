"""C code is compiled when it should be, kept, and done without where it cannot be."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_double
from pathlib import Path
from time import monotonic

import pytest

import fem.support.compilation
import fem.support.native
from fem import compilation
from fem.support.native import Library, build, find_compiler, library

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
SOURCE = "double run(double x) { return 2 * x; }\n"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing compiled, nothing loaded, no warning given yet."""
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "cache"))
    native = fem.support.native
    stores = (native._libraries, native._hanging, fem.support.compilation._missing)
    for store in stores:
        store.clear()
    native.not_trusted.cache_clear()
    yield
    for store in stores[1:]:
        store.clear()


def doubled(code: Library) -> float:
    assert code.run is not None
    code.run.restype, code.run.argtypes = c_double, [c_double]
    return code.run(1.5)


def test_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.support.native, "WORTH", 25)
    with compilation("never"):
        assert not library(SOURCE).ready(100)
    assert [library(SOURCE).ready(10) for _ in range(3)] == [False, False, True]
    with compilation("always"):
        assert library(SOURCE + "\n").ready(0)
    assert doubled(library(SOURCE + "\n")) == 3
    assert len(list(library(SOURCE).path.parent.iterdir())) == 2
    with compilation("never"):
        assert not library(SOURCE).ready(100)


def test_what_an_earlier_process_compiled_serves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with compilation("always"):
        library(SOURCE).ready(0)
    fem.support.native._libraries.clear()
    monkeypatch.setattr(subprocess, "Popen", None)
    assert library(SOURCE).ready(0)
    assert doubled(library(SOURCE)) == 3


def test_a_copy_is_the_same_library() -> None:
    known = library("int run(void) { return 3; }")
    with compilation("always"):
        assert known.ready(0) or find_compiler() is None
    assert copy.deepcopy(known) is known


def test_several_threads_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, run = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: (calls.append(1), run(*args, **options))[1])
    with compilation("always"), ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: library(SOURCE).ready(0), range(8)))
    assert len(calls) == 1


def test_what_is_begun_is_there_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.support.native, "WORTH", 25)
    library(SOURCE).begin(10)  # too little
    with compilation("never"):
        library(SOURCE).begin(100)
    assert not library(SOURCE).tried
    library(SOURCE).begin(100)
    assert library(SOURCE).ready(100)
    assert doubled(library(SOURCE)) == 3


def test_a_library_that_is_no_library_is_made_again() -> None:
    path = library(SOURCE).path
    path.parent.mkdir()
    path.write_text("not a library")
    assert library(SOURCE).ready(0)
    assert doubled(library(SOURCE)) == 3


def test_without_a_compiler_there_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.support.native, "find_compiler", lambda: None)
    with compilation("always"):
        with pytest.warns(UserWarning, match="no working C compiler was found. Install gcc or clang, or say"):
            assert not library(SOURCE).ready(0)
        assert not library(SOURCE).ready(0)
        assert not library(SOURCE + "\n").ready(0)


def test_code_that_does_not_compile() -> None:
    with compilation("always"), pytest.warns(UserWarning, match="stays uncompiled and slower: .* said: .*error"):
        assert not library("this is not C").ready(0)


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "file" / "cache"))
    with compilation("always"), pytest.warns(UserWarning, match="cannot be kept .* let `RITZ_CACHE` name a folder"):
        assert not library(SOURCE).ready(0)


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RITZ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library(SOURCE).path.parent == tmp_path / "ritz"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library(SOURCE).path.parent == Path.home() / ".cache" / "ritz"


def test_the_compiler_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CC", str(mine))
    assert find_compiler.__wrapped__() == str(mine)


def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> Path:
    mine = tmp_path / "compiler"
    mine.write_text(script)
    mine.chmod(0o755)
    monkeypatch.setattr(fem.support.native, "find_compiler", lambda: str(mine))
    return mine


def test_a_compiler_that_does_not_return_is_ended_with_all_it_has_started(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(fem.support.native, "LIMIT", 0.5)
    pid = tmp_path / "pid"
    compiler(monkeypatch, tmp_path, f"#!/bin/sh\nsleep 600 &\necho $! > {pid}\nwait\n")
    start = monotonic()
    with compilation("always"):
        with pytest.warns(UserWarning, match="did not return within 0.5 seconds, and is not asked again"):
            assert not library(SOURCE).ready(0)
        assert not library(SOURCE + "\n").ready(0)
    assert monotonic() - start < 60
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid.read_text().strip()], capture_output=True, text=True).stdout
    assert state.strip()[:1] in ("", "Z")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\n", "said: nothing, returned 0 and made no library"),
        ('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; : > $2\n', "said: nothing, returned 0 and made no library"),
        ("#!/bin/sh\nprintf 'disk full \\377' >&2; exit 1\n", "said: disk full"),
        ('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo text > $2\n', "cannot be loaded"),
        ("#!/no/such/shell\n", "cannot be run .*let `CC` name another"),
        ('#!/bin/sh\nrm -r "$RITZ_CACHE"\nexit 1\n', "cannot be kept|said"),
    ],
    ids=["silent", "empty", "full disk", "no library", "no program", "folder removed"],
)
def test_compilers_that_make_nothing(monkeypatch, tmp_path, script, said) -> None:
    compiler(monkeypatch, tmp_path, script)
    with compilation("always"), pytest.warns(UserWarning, match=said):
        assert not library(SOURCE).ready(0)


def test_a_folder_is_no_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CC", str(tmp_path))
    assert find_compiler.__wrapped__() != str(tmp_path)


@pytest.mark.parametrize("name", ["", "relative"])
def test_libraries_are_loaded_by_their_whole_names(monkeypatch, tmp_path, name) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("RITZ_CACHE", name)
    seen, load = [], fem.support.native.ctypes.CDLL
    monkeypatch.setattr(fem.support.native.ctypes, "CDLL", lambda path: (seen.append(path), load(path))[1])
    with compilation("always"):
        assert library(SOURCE).ready(0)
    assert Path(seen[0]).parent == tmp_path.resolve() / (name or "user/ritz")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
@pytest.mark.parametrize("above", [False, True])
def test_what_others_can_write_to_is_not_used(tmp_path: Path, mode: int, above: bool) -> None:
    code = library(SOURCE)
    folder = tmp_path / "cache"
    folder.mkdir()
    assert build(SOURCE, code.path)
    shared = tmp_path if above else folder
    shared.chmod(mode)
    with compilation("always"):
        if above and mode & 0o1000:  # like /tmp: others cannot rename what is ours
            assert code.ready(0)
        else:
            with pytest.warns(UserWarning, match=f"others can write to {shared}, .*chmod go-w"):
                assert not code.ready(0)
            assert not library(SOURCE + "\n").ready(0)  # and no second warning
    shared.chmod(0o700)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="gives files away")
def test_what_belongs_to_others_is_not_used(tmp_path: Path) -> None:
    code = library(SOURCE)
    code.path.parent.mkdir()
    assert build(SOURCE, code.path)
    os.chown(code.path, 4321, 4321)
    assert code.ready(0)
    assert code.path.stat().st_uid == 0  # made again
    os.chown(code.path.parent, 4321, 4321)
    with compilation("always"), pytest.warns(UserWarning, match="others can write to"):
        assert not library(SOURCE + "\n").ready(0)


def test_folders_are_made_for_us_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "a" / "b"))
    before = os.umask(0)
    try:
        with compilation("always"):
            assert library(SOURCE).ready(0)
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", library(SOURCE).path]
    assert [p.stat().st_mode & 0o777 for p in made] == [0o755] * 3


def test_a_link_to_a_folder_of_ours_is_followed(monkeypatch, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "link"))
    with compilation("always"):
        assert library(SOURCE).ready(0)
    assert len(list((tmp_path / "real").iterdir())) == 1


DAMAGED = """
import ctypes, os, shutil, subprocess, sys, warnings
from pathlib import Path
from fem import compilation
from fem.support.native import build, library

def planted(path):
    text = '#include <stdio.h>\\n__attribute__((constructor)) static void x(void) { puts("planted"); fflush(stdout); }'
    text += "double run(double x) { return 0; }"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)], input=text, text=True, check=True)

def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 64] = bytes(64 * [0xCC])
    path.write_bytes(content)

def of_another(path):
    other = "double run(double x) { return 3 * x; }"
    build(other, library(other).path)
    shutil.copy(library(other).path, path)

def linked(path, to):
    path.unlink()
    path.symlink_to(to)

def another_machine(path):
    content = bytearray(path.read_bytes())
    content[18] = 243  # RISC-V
    path.write_bytes(content)

def sealed(path):  # whole, but of another machine
    import hashlib
    another_machine(path)
    content = path.read_bytes()[:-32]
    path.write_bytes(content + hashlib.sha256(path.name.encode() + content).digest())

KINDS = {
    "cut to 60 %": lambda p: os.truncate(p, p.stat().st_size * 6 // 10),
    "cut by a byte": lambda p: os.truncate(p, p.stat().st_size - 1),
    "cut to its header": lambda p: os.truncate(p, 64),
    "without its digest": lambda p: os.truncate(p, p.stat().st_size - 32),
    "empty": lambda p: os.truncate(p, 0),
    "longer": lambda p: p.open("ab").write(b"0"),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "text": lambda p: p.write_text("not a library"),
    "flipped": flipped,
    "planted": planted,
    "of another": of_another,
    "another machine": another_machine,
    "sealed for another machine": sealed,
    "others may write": lambda p: p.chmod(0o666),
    "nobody may read": lambda p: p.chmod(0),
    "dangling link": lambda p: linked(p, "/no/such/file"),
    "link to itself": lambda p: linked(p, p),
    "link to a folder": lambda p: linked(p, p.parent),
    "pipe": lambda p: (p.unlink(), os.mkfifo(p)),
    "missing": lambda p: p.unlink(),
    "folder gone": lambda p: shutil.rmtree(p.parent),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a full folder": lambda p: (p.unlink(), p.mkdir(), (p / "x").touch()),
}
for i, (kind, damage) in enumerate(KINDS.items()):
    source = f"double run(double x) {{ return 2 * x; }} // {i}" + chr(10)
    code = library(source)
    code.path.parent.mkdir(exist_ok=True)
    assert build(source, code.path)  # and never loaded, since a process loads a name once
    damage(code.path)
    with warnings.catch_warnings(record=True) as said, compilation("always"):
        warnings.simplefilter("always")
        ready = code.ready(0)
    if ready:
        code.run.restype, code.run.argtypes = ctypes.c_double, [ctypes.c_double]
    print(kind, code.run(1.5) if ready else "uncompiled", len(said), sep="|", flush=True)
"""


def test_damaged_libraries_are_made_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DAMAGED], capture_output=True, text=True, timeout=300)
    found = dict(line.split("|", 1) for line in done.stdout.splitlines())  # a planted one would say so
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert len(found) == 23
    occupied = {"a folder", "a full folder"}
    assert {kind for kind, result in found.items() if result != "3.0|0"} == occupied
    assert {found[kind] for kind in occupied} == {"uncompiled|1"}
