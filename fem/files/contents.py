"""What a file holds, as it stands there: readers of our own for most formats, meshio's under guard for the others."""

import contextlib
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fem.errors import MeshError
from fem.files.formats.abaqus.model import read_abaqus
from fem.files.formats.exodus import read_exodus
from fem.files.formats.flac3d import read_flac3d
from fem.files.formats.gmsh import read_gmsh
from fem.files.formats.med import read_med
from fem.files.formats.medit import read_medit
from fem.files.formats.nastran import read_nastran
from fem.files.formats.ply import read_ply
from fem.files.formats.scanner import text_of
from fem.files.formats.su2 import read_su2
from fem.files.formats.surfaces import read_obj, read_off, read_stl, read_wkt
from fem.files.formats.tables import read_avs, read_tetgen
from fem.files.formats.vtk.legacy import read_vtk_legacy
from fem.files.formats.vtk.vtu import read_vtu
from fem.files.references import check_hdf5, checked, unpacked

READERS: dict[str, Callable[[bytes], Any]] = {
    ".msh": read_gmsh,
    ".vtk": read_vtk_legacy,
    ".vtu": read_vtu,
    ".mesh": read_medit,
    ".off": read_off,
    ".stl": read_stl,
    ".obj": read_obj,
    ".wkt": read_wkt,
    ".ply": read_ply,
    ".su2": read_su2,
    ".bdf": read_nastran,
    ".fem": read_nastran,
    ".nas": read_nastran,
    ".avs": read_avs,
    ".f3grid": read_flac3d,
}
OF_PATHS: dict[str, Callable[[Path], Any]] = {
    ".inp": read_abaqus,
    ".med": read_med,
    ".e": read_exodus,
    ".exo": read_exodus,
    ".ex2": read_exodus,
    ".node": read_tetgen,
    ".ele": read_tetgen,
}
# Formats of meshio's that are read from a stream, as text or in bytes, which tells when the file ends.
TEXT = {".vol": "netgen", ".post": "permas", ".dato": "permas", ".dat": "tecplot", ".tec": "tecplot"}
BYTES = {".msh": "ansys", ".mdpa": "mdpa"}
WHOLE = (".xdmf", ".xmf", ".cgns", ".h5m", ".hmf", ".xml", ".meshb", ".ugrid")
DAMAGED = "it is damaged, cut off, or not of the format that its name says"
HDF5 = (".cgns", ".h5m", ".hmf", ".med", ".e", ".exo", ".ex2")


def read_contents(path: Path) -> Any:
    """A `RawMesh` or `meshio.Mesh`.

    Raises:
        MeshError: no such file; damaged, or not of the format that its name says. Whatever is wrong ends in this one
            error, which names the file, the place where it is known, and the cause.
    """
    if not path.is_file():
        raise MeshError(f"cannot read {path}: {'it is a directory' if path.is_dir() else 'no such file'}.")
    if path.stat().st_size == 0:
        raise MeshError(f"cannot read {path}: it is empty.")
    suffix = path.suffix.lower()
    try:
        if suffix in HDF5:
            check_hdf5(path)
        if suffix in OF_PATHS:
            return OF_PATHS[suffix](path)
        data = path.read_bytes()
        text = text_of(data)
        # Ansys calls its files .msh as well; they begin with a bracket.
        if suffix in READERS and not (suffix == ".msh" and text.lstrip().startswith(b"(")):
            return READERS[suffix](text)
        return read_by_meshio(path, data)
    except MeshError as error:
        raise MeshError(f"cannot read {path}: {error}") from error
    except ModuleNotFoundError as error:
        raise MeshError(
            f"cannot read {path}: this needs the package {error.name}; `pip install {error.name}`."
        ) from error
    except (
        ArithmeticError,
        AssertionError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        raise MeshError(f"cannot read {path}: it is damaged, cut off, or not of the format that its name says.") from e


def read_by_meshio(path: Path, data: bytes) -> Any:
    """What meshio makes of the file. It prints what it dislikes, warns, and may call `sys.exit`."""
    import meshio

    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
            source_of(path, data) as (source, file_format),
        ):
            warnings.simplefilter("ignore")
            # NumPy's way to say that numbers were expected and something else was found.
            warnings.filterwarnings("error", "string or file could not be read")
            contents = meshio.read(source, file_format)
    except (MeshError, ModuleNotFoundError):
        raise
    except (Exception, SystemExit) as error:
        # Of meshio's own words those are of use that it means for people.
        said = str(error) if isinstance(error, meshio.ReadError) else printed.getvalue().split("Error:")[0]
        cause = " ".join(said.split()).rstrip(".")
        raise MeshError(f"{cause or DAMAGED}.") from error
    if not all(np.asarray(b.data).ndim == 2 and np.asarray(b.data).dtype.kind in "iu" for b in contents.cells):
        raise MeshError("cells should be rows of whole numbers, those of their nodes.")
    if contents.points is None or np.ndim(contents.points) != 2 or np.asarray(contents.points).dtype.kind not in "iuf":
        raise MeshError("points should be rows of numbers, their coordinates.")
    if path.suffix.lower() == ".msh":
        check_ansys(data, len(contents.points), sum(len(block.data) for block in contents.cells))
    if "cannot handle" in printed.getvalue():  # cells were left out
        raise MeshError(" ".join(printed.getvalue().split()))
    return contents


def check_ansys(data: bytes, points: int, cells: int) -> None:
    """Raise where meshio read more or less than an Ansys file announces: (10 (0 1 n)) nodes, (12 (0 1 n)) cells."""
    for section, found, what in ((b"10", points, "nodes"), (b"12", cells, "cells")):
        announced = re.search(rb"\(\s*" + section + rb"\s*\(\s*0\s+1\s+([0-9a-fA-F]+)\b", data)
        if announced is not None and int(announced[1], 16) != found:
            raise MeshError(f"it announces {int(announced[1], 16)} {what}, but {found} were found.")


@contextlib.contextmanager
def source_of(path: Path, data: bytes) -> Iterator[tuple[Any, str | None]]:
    """What meshio is given: a stream and its format, or a file; it is in UTF-8 and, if it was packed, no longer is.

    Raises:
        MeshError: no format is known by that name, or the file refers to what it should not.
    """
    name, text = path.name, data
    if name.lower().endswith(".gz"):
        name, text = name[:-3], unpacked(data)
    suffix = Path(name).suffix.lower()
    if suffix not in (*TEXT, *BYTES, *WHOLE):
        raise MeshError(f"Could not deduce file format from {suffix or 'a name without ending'!r}.")
    text = checked(path, suffix, text_of(text))
    with tempfile.TemporaryDirectory() as scratch:
        copy = path
        if text != data:
            copy = Path(scratch) / name
            copy.write_bytes(text)
        if suffix in TEXT:
            with TextThatEnds(io.BufferedReader(io.FileIO(copy)), encoding="utf-8", errors="replace") as stream:
                yield stream, TEXT[suffix]
        elif suffix in BYTES:
            with BytesThatEnd(io.FileIO(copy)) as stream:
                yield stream, BYTES[suffix]
        else:
            yield copy, None


class Ends:
    """A stream that raises where somebody goes on reading after the end: meshio waits for ever otherwise."""

    after_the_end = 0

    def readline(self, *size: int) -> Any:
        return self.counted(super().readline(*size))  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, *size: int) -> Any:
        return self.counted(super().read(*size))  # pyright: ignore[reportAttributeAccessIssue]

    def counted(self, found: Any) -> Any:
        """What was read, if the end was not met too often."""
        self.after_the_end += not found
        if self.after_the_end > 100:
            raise MeshError("the file ends before its last section does; it is cut off, or a count is too large.")
        return found


class TextThatEnds(Ends, io.TextIOWrapper):
    """Text."""


class BytesThatEnd(Ends, io.BufferedReader):
    """Bytes."""
