"""Files that are whole or not there: written beside their place, and moved there when complete."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def put(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a sibling of `path` and move it there when it is complete."""
    # A name that no other process or thread can have: the last writer wins, and each file is one of theirs.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        with explained(path):
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # else a power cut may leave the name without the content
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """The operating system's errors, with what was to be written and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = "choose a place that you can write to"
        if not path.parent.is_dir():
            remedy = f"make the directory {str(path.parent)!r} first"
        raise OSError(error.errno, f"cannot write {path} ({error.strerror or error}); {remedy}") from error
