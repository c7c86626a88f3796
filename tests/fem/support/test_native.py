"""C code is compiled when it should be, kept, and done without where it cannot be."""

import subprocess
from ctypes import c_double
from pathlib import Path

import pytest

import fem.support.compilation
import fem.support.native
from fem import compilation
from fem.support.native import find_compiler, library, native

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
SOURCE = "double run(double x) { return 2 * x; }\n"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing compiled, nothing loaded, no warning given yet."""
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fem.support.native, "_loaded", {})
    monkeypatch.setattr(fem.support.native, "_work", fem.support.native.Counter())
    monkeypatch.setattr(fem.support.compilation, "_missing", [])


def doubled(function) -> float:
    assert function is not None
    function.restype, function.argtypes = c_double, [c_double]
    return function(1.5)


def test_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.support.native, "WORTH", 25)
    with compilation("never"):
        assert native(SOURCE, 100) is None
    assert [native(SOURCE, 10) is None for _ in range(3)] == [True, True, False]
    with compilation("always"):
        assert doubled(native(SOURCE + "\n", 0)) == 3
    assert len(list(library(SOURCE).parent.iterdir())) == 2


def test_what_an_earlier_process_compiled_serves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with compilation("always"):
        native(SOURCE, 0)
    fem.support.native._loaded.clear()
    monkeypatch.setattr(subprocess, "run", None)
    assert doubled(native(SOURCE, 0)) == 3


def test_a_library_that_is_no_library_is_made_again() -> None:
    path = library(SOURCE)
    path.parent.mkdir()
    path.write_text("not a library")
    assert doubled(native(SOURCE, 0)) == 3


def test_without_a_compiler_there_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.support.native, "find_compiler", lambda: None)
    with compilation("always"):
        with pytest.warns(UserWarning, match="no working C compiler was found. Install gcc or clang, or say"):
            assert native(SOURCE, 0) is None
        assert native(SOURCE, 0) is None
        assert native(SOURCE + "\n", 0) is None


def test_code_that_does_not_compile() -> None:
    with compilation("always"), pytest.warns(UserWarning, match="stays uncompiled and slower: .* said: .*error"):
        assert native("this is not C", 0) is None


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RITZ_CACHE", str(tmp_path / "file" / "cache"))
    with compilation("always"), pytest.warns(UserWarning, match="cannot be kept .* let `RITZ_CACHE` name a folder"):
        assert native(SOURCE, 0) is None


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RITZ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library(SOURCE).parent == tmp_path / "ritz"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library(SOURCE).parent == Path.home() / ".cache" / "ritz"


def test_the_compiler_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CC", str(mine))
    assert find_compiler.__wrapped__() == str(mine)
