"""MED files (Salome, Code_Aster): nodes, elements, families of both as the groups that they stand for, and fields.

Read here with h5py rather than by meshio, which lets no file pass whose elements of one kind are in no family, and
knows no biquadratic elements. Sizes are axes: coordinates and the nodes of elements stand component after component.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fem.errors import MeshError
from fem.files.raw import RawBlock, RawMesh

KINDS = {
    "PO1": ("vertex", 1),
    "SE2": ("line", 2),
    "SE3": ("line3", 3),
    "SE4": ("line4", 4),
    "TR3": ("triangle", 3),
    "TR6": ("triangle6", 6),
    "TR7": ("triangle7", 7),
    "QU4": ("quad", 4),
    "QU8": ("quad8", 8),
    "QU9": ("quad9", 9),
    "TE4": ("tetra", 4),
    "T10": ("tetra10", 10),
    "PY5": ("pyramid", 5),
    "P13": ("pyramid13", 13),
    "PE6": ("wedge", 6),
    "P15": ("wedge15", 15),
    "P18": ("wedge18", 18),
    "HE8": ("hexahedron", 8),
    "H20": ("hexahedron20", 20),
    "H27": ("hexahedron27", 27),
}
# Where the nodes of VTK's order stand in that of MED, if it is another.
ORDER = {"hexahedron27": (*range(20), 24, 22, 21, 23, 20, 25, 26)}
WHOLE = "MED_NO_PROFILE_INTERNAL"


def read_med(path: Path) -> RawMesh:
    """The only mesh of a file, groups as sets of cells and points, and fields at their last step.

    Raises:
        MeshError: none or several meshes, a structured one, or elements of an unknown kind.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return contents_of(file)
    except OSError as error:
        raise MeshError(f"it is damaged or no MED file ({' '.join(str(error).split())[:80]}).") from error


def contents_of(file: Any) -> RawMesh:
    """The contents of an open file."""
    meshes = list(file["ENS_MAA"]) if "ENS_MAA" in file else []
    if len(meshes) != 1:
        raise MeshError(f"it holds {len(meshes)} meshes ({', '.join(meshes)}); a file to read holds one.")
    mesh = file["ENS_MAA"][meshes[0]]
    dim = int(mesh.attrs["ESP"])
    if "NOE" not in mesh:
        steps = list(mesh)
        if len(steps) != 1:
            raise MeshError(f"its mesh {meshes[0]!r} has {len(steps)} steps in time; a file to read holds one.")
        mesh = mesh[steps[0]]
    if "NOE" not in mesh or "MAI" not in mesh:
        raise MeshError(f"its mesh {meshes[0]!r} has no elements, or is a structured grid.")
    points = columns(mesh["NOE"]["COO"], dim)
    families = file["FAS"].get(meshes[0], {}) if "FAS" in file else {}
    contents = RawMesh(points, [])
    kinds = list(mesh["MAI"])
    for kind in kinds:
        if kind not in KINDS:
            raise MeshError(f"elements of kind {kind!r} are not supported.")
        name, size = KINDS[kind]
        rows = columns(mesh["MAI"][kind]["NOD"], size).astype(np.int64) - 1
        contents.cells.append(RawBlock(name, rows[:, ORDER[name]] if name in ORDER else rows))
    named = groups(families.get("ELEME", {}))
    nothing = np.empty(0, dtype=np.int64)
    for i, kind in enumerate(kinds):
        for name, chosen in members(mesh["MAI"][kind], named, len(contents.cells[i].data)):
            sets = contents.cell_sets.setdefault(name, [nothing] * len(kinds))
            sets[i] = np.union1d(sets[i], chosen)
    for name, chosen in members(mesh["NOE"], groups(families.get("NOEUD", {})), len(points)):
        contents.point_sets[name] = np.union1d(contents.point_sets.get(name, nothing), chosen)
    add_fields(contents, file, kinds)
    return contents


def columns(dataset: Any, count: int) -> np.ndarray:
    """Rows "n count" of numbers that are stored column after column."""
    values = np.asarray(dataset[()]).ravel()
    entries = int(dataset.attrs.get("NBR", len(values) // count))
    if len(values) != count * entries:
        raise MeshError(f"{dataset.name} holds {len(values)} numbers, which are not {count} for {entries} entries.")
    return values.reshape(count, -1).T


def groups(families: Any) -> dict[int, list[str]]:
    """Names of the groups of each family, by its number; the number itself where it has none."""
    found = {}
    for family in families.values():
        number = int(family.attrs["NUM"])
        rows = family["GRO"]["NOM"][()] if "GRO" in family else ()
        names = [np.asarray(row).astype(np.uint8).tobytes() for row in rows]
        plain = [name.split(b"\0")[0].decode("utf-8", "replace").strip() for name in names]
        found[number] = [name for name in plain if name] or [str(abs(number))]
    return found


def members(group: Any, named: dict[int, list[str]], count: int) -> list[tuple[str, np.ndarray]]:
    """Which nodes or elements belong to each group; those of family 0 are in none."""
    numbers = np.asarray(group["FAM"][()]).ravel() if "FAM" in group else np.zeros(count, dtype=np.int64)
    if len(numbers) != count:
        raise MeshError(f"{group.name} has {count} entries, but {len(numbers)} numbers of families.")
    return [
        (name, np.flatnonzero(numbers == number))
        for number in np.unique(numbers).tolist()
        if number
        for name in named.get(number, [str(abs(number))])
    ]


def add_fields(contents: RawMesh, file: Any, kinds: list[str]) -> None:
    """Fields at nodes, and those of elements with one value in each; where a profile gives none it is NaN."""
    for name, field in file.get("CHA", {}).items():
        steps = sorted(field)
        for support, data in field[steps[-1]].items() if steps else ():
            kind = support.partition(".")[2]
            if support == "NOE":
                contents.point_data[name] = values_of(data, file, len(contents.points))
            elif support == f"MAI.{kind}" and kind in kinds:
                i = kinds.index(kind)
                values = values_of(data, file, len(contents.cells[i].data))
                if values is not None:
                    blank = [np.full((len(b.data), *values.shape[1:]), np.nan) for b in contents.cells]
                    contents.cell_data.setdefault(name, blank)[i] = values
    contents.point_data = {name: values for name, values in contents.point_data.items() if values is not None}


def values_of(data: Any, file: Any, count: int) -> Any:
    """Values "n" or "n c" of one field on one kind of support, or None where there are several in each place."""
    profile = data.attrs.get("PFL", WHOLE)
    profile = profile.decode() if isinstance(profile, bytes) else str(profile)
    part = data[profile]
    if int(part.attrs.get("NGA", 1)) != 1:
        return None
    where = np.arange(count) if profile == WHOLE else file["PROFILS"][profile]["PFL"][()].ravel() - 1
    given = np.asarray(part["CO"][()], dtype=float)
    if len(where) == 0 or given.size % len(where) or where.min() < 0 or where.max() >= count:
        raise MeshError(f"{part.name} does not fit the {count} places of its field.")
    values = np.full((count, given.size // len(where)), np.nan)
    values[where] = given.reshape(values.shape[1], -1).T
    return values[:, 0] if values.shape[1] == 1 else values
