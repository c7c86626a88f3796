"""C code is compiled when it should be, kept, and done without where it cannot be."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_double
from pathlib import Path

import pytest

import fem.support.compilation
import fem.support.native
from fem import compilation
from fem.support.native import Library, find_compiler, library

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
SOURCE = "double run(double x) { return 2 * x; }\n"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing compiled, nothing loaded, no warning given yet."""
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "cache"))
    for store in (fem.support.native._libraries, fem.support.compilation._missing):
        store.clear()
    yield
    fem.support.compilation._missing.clear()


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
    monkeypatch.setattr(subprocess, "run", None)
    assert library(SOURCE).ready(0)
    assert doubled(library(SOURCE)) == 3


def test_several_threads_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: (calls.append(1), run(*args, **options))[1])
    with compilation("always"), ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: library(SOURCE).ready(0), range(8)))
    assert len(calls) == 1


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
