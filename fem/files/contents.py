"""What meshio makes of a file, with one `MeshError` in place of all the ways in which it may fail."""

import contextlib
import io
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

from fem.errors import MeshError
from fem.files.formats.abaqus import read_abaqus
from fem.files.formats.exodus import read_exodus
from fem.files.formats.su2 import su2_markers

READERS = {".inp": read_abaqus, ".e": read_exodus, ".exo": read_exodus, ".ex2": read_exodus}


def read_contents(path: Path) -> tuple[Any, tuple[int, int] | None]:
    """What meshio makes of the file, and the version of the format of `.vtu` files.

    meshio prints what it dislikes, warns, and may call `sys.exit`: all this ends in one `MeshError`.
    """
    import meshio

    if not path.is_file():
        raise MeshError(f"cannot read {path}: {'it is a directory' if path.is_dir() else 'no such file'}.")
    if path.stat().st_size == 0:
        raise MeshError(f"cannot read {path}: it is empty.")
    suffix = path.suffix.lower()
    if suffix in READERS:
        try:
            return READERS[suffix](path), None
        except ModuleNotFoundError as error:
            raise MeshError(
                f"cannot read {path}: this needs the package {error.name}; `pip install {error.name}`."
            ) from error
        except MeshError as error:
            raise MeshError(f"cannot read {path}: {error}") from error
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory() as scratch,
        ):
            warnings.simplefilter("ignore")
            # NumPy's way to say that numbers were expected and something else was found.
            warnings.filterwarnings("error", "string or file could not be read")
            source, version = path, vtu_version(path)
            if version is not None and version >= (2, 0):
                # meshio refuses these versions, which differ only in the order of the nodes of hexahedra.
                source = Path(scratch) / path.name
                renamed = re.sub(rb'(<VTKFile[^>]*\bversion=")[\d.]+', rb"\g<1>1.0", path.read_bytes(), count=1)
                source.write_bytes(renamed)
            contents = meshio.read(source)
            if suffix == ".su2":
                contents.side_sets = su2_markers(path)  # type: ignore[attr-defined]
    except ModuleNotFoundError as error:
        raise MeshError(
            f"cannot read {path}: this needs the package {error.name}; `pip install {error.name}`."
        ) from error
    except (Exception, SystemExit) as error:
        plain = isinstance(error, ValueError | OSError | meshio.ReadError)
        said = "" if isinstance(error, SystemExit) else str(error) if plain else repr(error)
        cause = " ".join((said or printed.getvalue().split("Error:")[0]).split()).rstrip(".")
        hint = " Gmsh's MSH 4.1 and 2.2 are read best." if path.suffix == ".msh" else ""
        raise MeshError(f"cannot read {path}: {cause or 'it is damaged or of another format'}.{hint}") from error
    if "cannot handle" in printed.getvalue():  # cells were left out
        raise MeshError(f"cannot read {path}: {' '.join(printed.getvalue().split())}")
    return contents, version


def vtu_version(path: Path) -> tuple[int, int] | None:
    """The version in the header of a `.vtu` file."""
    with path.open("rb") as file:
        found = re.search(rb'<VTKFile[^>]*\bversion="(\d+)\.(\d+)"', file.read(2000))
    return None if found is None else (int(found[1]), int(found[2]))
