"""Random damage to sound files of all formats, and whether what is read of them may be believed.

Run as `python -m tests.fem.files.mutated_files FOLDER SEED COUNT`, it limits its own memory and time and prints what is
wrong.
"""

import contextlib
import gzip
import io
import random
import re
import resource
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import meshio
import numpy as np

from fem.errors import MeshError
from fem.files.contents import read_contents
from fem.files.reading import read_mesh
from fem.mesh.generators import unit_cube, unit_square
from fem.mesh.geometry import cell_domains, geometry
from fem.mesh.mesh import Mesh
from tests.fem.files.broken_files import SOUND, write

KINDS = {"triangle": ("triangle", "line"), "tetrahedron": ("tetra", "triangle"), "hexahedron": ("hexahedron", "quad")}
FORMATS = """
    gmsh22 msh, gmsh msh, vtk42 vtk, vtk51 vtk, vtu vtu, xdmf xdmf, abaqus inp, avsucd avs, cgns cgns, exodus e,
    h5m h5m, hmf hmf, mdpa mdpa, med med, medit mesh, medit meshb, nastran bdf, netgen vol, obj obj, off off,
    permas post, ply ply, stl stl, su2 su2, tecplot dat, tetgen node, wkt wkt, ansys msh, dolfin-xml xml,
    flac3d f3grid, ugrid ugrid
"""
OPTIONS = [{}, {"binary": False}, {"binary": True}, {"data_format": "XML"}, {"compression": "lzma"}]
# Formats without counts: a file with a cell less, or one more, says so in earnest.
UNCOUNTED = ("abaqus", "nastran", "obj", "permas", "mdpa", "wkt", "stl", "flac3d")
UNCOUNTED += ("data.inp", "data.bdf", "a.inp", "a.bdf", "a.obj", "a.wkt", "a.post", "a.mdpa")


class Late(BaseException):
    """Five seconds of work, and no end."""


def sound_files(folder: Path) -> list[Path]:
    """Unit squares and cubes in all formats and variants that meshio writes and that are read back."""
    written = [write(folder, name, data) for name, data in SOUND.items() if name not in ("a.stl", "a.node", "a.ele")]
    meshes = [unit_square(3, 2, cell="triangle"), unit_cube(2, 1, 1, cell="tetrahedron"), unit_cube(2, 1, 1)]
    for mesh in [*meshes, unit_square(2, 2, cell="triangle").curved(2)]:
        degree, (kind, facet) = mesh.blocks[0].degree, KINDS[mesh.blocks[0].cell.name]
        points = np.pad(mesh.nodes.numpy(), ((0, 0), (0, 3 - mesh.dim)))
        cells: list[Any] = [("triangle6" if degree == 2 else kind, mesh.cells.numpy())]
        numbers: list[Any] = [np.arange(len(cells[0][1])) % 2 + 1]
        if degree == 1:
            cells.append((facet, mesh.facets[mesh.topology.boundary].numpy()))
            numbers.append(np.full(len(cells[1][1]), 7))
        data = {"gmsh:physical": numbers, "gmsh:geometrical": numbers}
        for file_format, suffix in re.findall(r"([\w-]+) (\w+)", FORMATS):
            for i, options in enumerate(OPTIONS):
                for several in (len(cells), 1):
                    path = folder / f"{file_format}-{cells[0][0]}-{i}-{several}.{suffix}"
                    some = {key: values[:several] for key, values in data.items()} if file_format != "wkt" else {}
                    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                        try:
                            contents = meshio.Mesh(points, cells[:several], cell_data=some)
                            contents.write(path, file_format=file_format, **options)
                        except (Exception, SystemExit):  # no such format, kind of cell or option
                            path.unlink(missing_ok=True)
                            continue
                    written.append(path)
    for path in (Path(__file__).parent / "data").iterdir():
        name, data = (path.stem, gzip.decompress) if path.suffix == ".gz" else (path.name, bytes)
        if path.suffix != ".md":
            written.append(write(folder, f"data{Path(name).suffix}-{name}", data(path.read_bytes())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [path for path in written if is_sound(path)]


def is_sound(path: Path) -> bool:
    try:
        return abs(size(read_mesh(path)) - 1) < 1e-6 or path.name.startswith("data")
    except MeshError:
        return False


def size(mesh: Mesh) -> float:
    parts = (geometry(mesh, domain) for domain in cell_domains(mesh, 4))
    return sum(float(part.weights.expand(part.points.shape[:2]).sum()) for part in parts)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with one damage: a bit, bytes that go, come or are cut off, lines, or a number that becomes another."""
    at, lines = rng.randrange(len(data)), data.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(9):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + rng.choice([1, 1, 2, 5, 50]) :]
        case 2:
            return (
                data[:at] + bytes(rng.choice([rng.randrange(256), *b"0123456789 -.\n"]) for _ in range(2)) + data[at:]
            )
        case 3:
            return data[:at]
        case 4:
            lines[one], lines[other] = lines[other], lines[one]
        case 5:
            del lines[one]
        case 6:
            lines.insert(one, lines[other])
        case _:
            number = rng.choice(
                list(re.finditer(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?", data)) or [re.compile(b"").match(data)]
            )
            new = rng.choice([b"0", b"-1", b"999999999999", b"1e300", b"nan", b"%d" % rng.randrange(40)])
            return data[: number.start()] + new + data[number.end() :]
    return b"\n".join(lines)


def verdict(path: Path, sound: Mesh, kinds: Counter) -> str:
    """What is wrong with what is read, or nothing."""
    try:
        mesh = read_mesh(path)
    except (MeshError, UserWarning):
        return ""
    except Late:
        return "does not end"
    except BaseException as error:  # whatever a reader must not let through
        return repr(error)[:100]
    if abs(size(mesh) / size(sound) - 1) < 1e-6:
        return ""
    if mesh.nodes.shape[1] != sound.nodes.shape[1]:
        return ""  # a coordinate that was zero is not
    known = {tuple(x) for x in np.round(sound.nodes.numpy(), 9).tolist()}
    if any(tuple(x) not in known for x in np.round(mesh.nodes.numpy(), 9).tolist()):
        return ""  # a coordinate is another
    if mesh.num_cells != sound.num_cells and path.name.split("-")[0] in UNCOUNTED:
        return ""
    found = count(path)
    if any(number > kinds[kind] for kind, number in found.items()):
        return ""  # a cell is of another kind
    return f"measure {size(mesh):.6g} with {mesh.num_cells} cells instead of {sound.num_cells}"


def count(path: Path) -> Counter:
    """Cells in a file, by kind."""
    return Counter({block.type: len(block.data) for block in read_contents(path).cells})


def wrong(paths: list[Path], folder: Path, seed: int, number: int) -> list[str]:
    """What is wrong after so many mutations; the files are kept in `folder`."""
    rng, found, sound = random.Random(seed), [], {}
    by_format: dict[str, list[Path]] = {}
    for path in paths:
        by_format.setdefault(path.name.split("-")[0], []).append(path)
    with warnings.catch_warnings():
        for i in range(number):
            original = rng.choice(by_format[rng.choice(list(by_format))])
            warnings.simplefilter("ignore")
            if original not in sound:
                sound[original] = read_mesh(original), count(original)
            path = folder / original.name
            write(folder, path.name, mutated(original.read_bytes(), rng))
            for suffix in (".ele", ".h5"):
                beside = original.with_suffix(suffix)
                if beside.is_file() and suffix != path.suffix:
                    path.with_suffix(suffix).write_bytes(beside.read_bytes())
            warnings.simplefilter("error")
            signal.setitimer(signal.ITIMER_PROF, 5)
            said = verdict(path, *sound[original])
            signal.setitimer(signal.ITIMER_PROF, 0)
            if said:
                path.rename(folder / f"{seed}-{i}-{path.name}")
                found.append(f"{seed}-{i}-{path.name}: {said}")
    return found


def late(*_: object) -> None:
    raise Late


if __name__ == "__main__":
    place, seed, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    (place / "sound").mkdir(parents=True)
    signal.signal(signal.SIGPROF, late)
    files = sound_files(place / "sound")
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + 2**30, own + 2**30))
    print(*wrong(files, place, seed, number), sep="\n")
