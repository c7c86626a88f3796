"""What the package says of itself: its version, installed or not."""

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import fem

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r'^version = "(.*)"$', re.MULTILINE)


def test_the_version_is_that_of_the_project() -> None:
    assert fem.__version__ == NUMBER.findall((ROOT / "pyproject.toml").read_text())[0]


def test_a_source_tree_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert fem.__version__ == NUMBER.findall((ROOT / "pyproject.toml").read_text())[0]
    monkeypatch.setattr(fem, "__file__", "/nowhere/fem/__init__.py")
    assert fem.__version__ == "unknown"
