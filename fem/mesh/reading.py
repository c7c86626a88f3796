"""Meshes from files: whatever meshio reads, in our node order, with the file's own names for facets and cells.

The cells of highest dimension make the mesh; those one dimension lower only say which facets a name belongs to. Names
are Gmsh's physical groups, meshio's cell sets (Abaqus) and integer cell data called "material" or the like; a group
without a name goes by its number. Nodes that no cell uses are dropped, and so is a last coordinate that never varies.
"""

import contextlib
import io
import re
import tempfile
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.geometry import cell_domains, facet_domains, geometry
from fem.mesh.jacobian import determinant
from fem.mesh.mesh import Mesh, make_block, mirrored_nodes
from fem.reference.cells import CELLS, Cell, point
from fem.reference.lagrange import lagrange_element
from fem.support.checks import check_floating, check_kind

PREFIXES = {
    "line": "interval",
    "triangle": "triangle",
    "quad": "quadrilateral",
    "tetra": "tetrahedron",
    "hexahedron": "hexahedron",
}
LAGRANGE = {
    "VTK_LAGRANGE_CURVE": "interval",
    "VTK_LAGRANGE_TRIANGLE": "triangle",
    "VTK_LAGRANGE_QUADRILATERAL": "quadrilateral",
    "VTK_LAGRANGE_TETRAHEDRON": "tetrahedron",
    "VTK_LAGRANGE_HEXAHEDRON": "hexahedron",
}
# Integer cell data that numbers materials or boundary parts, as the common programs call it.
MARKERS = ("gmsh:physical", "medit:ref", "cell_tags", "material", "materialids", "attribute", "region", "subdomain")
# Gmsh numbers the interiors of edges and faces in this order and orientation (reference manual, "Node ordering").
GMSH_EDGES = {
    "quadrilateral": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetrahedron": ((0, 1), (1, 2), (2, 0), (3, 0), (3, 2), (3, 1)),
    "hexahedron": (
        *((0, 1), (0, 3), (0, 4), (1, 2), (1, 5), (2, 3)),
        *((2, 6), (3, 7), (4, 5), (4, 7), (5, 6), (6, 7)),
    ),
}
GMSH_FACES = {
    "quadrilateral": ((0, 1, 2, 3),),
    "tetrahedron": ((0, 2, 1), (0, 1, 3), (0, 3, 2), (3, 1, 2)),
    "hexahedron": ((0, 3, 2, 1), (0, 1, 5, 4), (0, 4, 7, 3), (1, 2, 6, 5), (2, 3, 7, 6), (4, 5, 6, 7)),
}


def read_mesh(
    path: str | PathLike[str], *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Mesh:
    """The mesh in a file of any format that meshio knows: Gmsh .msh, .vtu and .vtk, Abaqus .inp, .xdmf, .med, ….

    Intervals, triangles, quadrilaterals, tetrahedra and hexahedra of degree 1 to 3, mixed where they are of one
    dimension; VTK's Lagrange cells among them. Many programs write cells of either orientation: those that run the
    wrong way round are turned, provided that no cell then lies on top of its neighbour.

    Returns:
        A mesh whose `facet_tags` and `cell_tags` carry the names in the file ("3" for a group numbered 3 without one).

    Raises:
        MeshError: no such file, unreadable or without cells; unsupported kinds of cells; inverted, folded or degenerate
            cells; a group "boundary" that is not the whole boundary, as that name means in every mesh.
    """
    check_kind("read_mesh", "path", path, str | PathLike, "the path of a file")
    check_floating("read_mesh", dtype)
    path = Path(path)
    contents, version = read_contents(path)
    blocks = [(b.type, np.asarray(b.data)) for b in contents.cells]
    kinds = [cell_of(path, name) for name, _ in blocks]
    dim = max((kind.dim for kind, (_, rows) in zip(kinds, blocks, strict=True) if len(rows)), default=0)
    if dim == 0:
        raise MeshError(f"{path} contains no cells.")
    tops = [i for i, kind in enumerate(kinds) if kind.dim == dim]
    nodes, blocks = used_nodes(path, np.asarray(contents.points, dtype=np.float64), blocks, tops, dim)
    coordinates = torch.tensor(nodes, dtype=dtype, device=device)
    old_hexahedra = version is not None and version < (2, 1)
    try:
        parts: dict[str, list[Tensor]] = {}
        for i in tops:
            name, rows = blocks[i]
            order = vtk_order(name, kinds[i], rows.shape[1], old_hexahedra)
            block = make_block(
                coordinates, kinds[i].name, torch.tensor(rows[:, order], dtype=torch.int64, device="cpu")
            )
            parts.setdefault(kinds[i].name, []).append(block.connectivity)
        if any(len({part.shape[1] for part in several}) > 1 for several in parts.values()):
            raise MeshError("cells of one kind must all be of one degree.")
        mesh = oriented(coordinates, {name: torch.cat(several) for name, several in parts.items()})
        facet_tags, cell_tags = tags(contents, blocks, kinds, dim, list(parts))
        if "boundary" in facet_tags:
            name = "boundary in the file"
            own = mesh.with_tags({name: facet_tags.pop("boundary")}).facets_tagged(name).unique()
            if not torch.equal(own, mesh.topology.boundary):
                raise MeshError(
                    f"its group 'boundary' has {len(own)} facets, but that name means the whole boundary of "
                    f"{len(mesh.topology.boundary)}; give the group another name."
                )
        return mesh.with_tags(facet_tags, cell_tags)
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error


def read_contents(path: Path) -> tuple[Any, tuple[int, int] | None]:
    """What meshio makes of the file, and the version of the format of `.vtu` files.

    meshio prints what it dislikes, warns, and may call `sys.exit`: all this ends in one `MeshError`.
    """
    import meshio

    if not path.is_file():
        raise MeshError(f"cannot read {path}: {'it is a directory' if path.is_dir() else 'no such file'}.")
    if path.stat().st_size == 0:
        raise MeshError(f"cannot read {path}: it is empty.")
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


def cell_of(path: Path, name: str) -> Cell:
    """The reference cell of one of meshio's kinds."""
    if name == "vertex":
        return point
    if name in LAGRANGE:
        return CELLS[LAGRANGE[name]]
    supported = {}
    for prefix, cell in PREFIXES.items():
        sizes = [lagrange_element(CELLS[cell], degree).num_basis for degree in (1, 2, 3)]
        supported |= {prefix: cell} | {f"{prefix}{size}": cell for size in sizes[1:]}
    if name not in supported:
        raise MeshError(f"{path} contains {name} cells; supported are {', '.join(supported)} and VTK's Lagrange cells.")
    return CELLS[supported[name]]


def used_nodes(
    path: Path, nodes: np.ndarray, blocks: list[tuple[str, np.ndarray]], tops: list[int], dim: int
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Only the nodes of the cells, without last coordinates that are constant, and the blocks in their numbers."""
    connectivity = np.concatenate([blocks[i][1].ravel() for i in tops])
    if connectivity.min() < 0 or connectivity.max() >= len(nodes):
        wrong = connectivity[(connectivity < 0) | (connectivity >= len(nodes))][0]
        raise MeshError(f"{path}: a cell names node {wrong}, but there are {len(nodes)} nodes.")
    used = np.unique(connectivity)
    number = np.full(len(nodes), -1)
    number[used] = np.arange(len(used))
    nodes = nodes[used]
    extent = np.ptp(nodes, axis=0)
    while nodes.shape[1] > dim and extent[nodes.shape[1] - 1] <= 1e-12 * extent.max():
        nodes = nodes[:, :-1]
    return nodes, [(name, number[rows]) for name, rows in blocks]


def vtk_order(name: str, cell: Cell, size: int, old_hexahedra: bool) -> list[int]:
    """Where each node of our order stands in the file's.

    meshio keeps Gmsh's own order for cubic cells. VTK exchanged the last two vertical edges of Lagrange hexahedra in
    version 9; files older than format 2.1 have them the other way round.
    """
    natural = list(range(size))
    if name == "VTK_LAGRANGE_HEXAHEDRON":
        return exchanged_edges(size) if old_hexahedra else natural
    if name in LAGRANGE or cell.name not in GMSH_EDGES or size != lagrange_element(cell, 3).num_basis:
        return natural
    vertices = torch.tensor(cell.vertices, dtype=torch.float64, device="cpu")
    nodes = [vertices]
    for edge in GMSH_EDGES[cell.name]:
        ends = vertices[list(edge)]
        nodes.append((2 * ends + ends.flip(0)) / 3)
    for face in GMSH_FACES[cell.name]:
        corners = vertices[list(face)]
        nodes.append((corners + 2 * corners.mean(0)) / 3 if len(face) == 4 else corners.mean(0, keepdim=True))
    if cell.name == "hexahedron":
        nodes.append((vertices + 2 * vertices.mean(0)) / 3)
    return torch.cdist(lagrange_element(cell, 3).nodes, torch.cat(nodes)).argmin(1).tolist()


def exchanged_edges(size: int) -> list[int]:
    """Lagrange hexahedra with the interiors of edges 10 and 11 exchanged; its own inverse."""
    inner = round(size ** (1 / 3)) - 2
    start = 8 + 10 * inner
    swapped = [*range(start + inner, start + 2 * inner), *range(start, start + inner)]
    return [*range(start), *swapped, *range(start + 2 * inner, size)]


def oriented(nodes: Tensor, cells: dict[str, Tensor]) -> Mesh:
    """The mesh with every cell that runs the wrong way round turned.

    A cell may also be negative because its nodes have crossed its neighbours. Turning it would hide the damage, but not
    from the divergence theorem: Σ_cells |V| = 1/d ∮ x·n only where no cell lies on another.
    """
    turned = {}
    for name, connectivity in cells.items():
        block = make_block(nodes, name, connectivity)
        if block.cell.dim == nodes.shape[1]:
            centre = torch.tensor(block.cell.vertices, dtype=torch.float64, device="cpu").mean(0, keepdim=True)
            grad = block.element.tabulate(centre.to(nodes)).grad
            assert grad is not None
            negative = determinant(torch.einsum("ar,ead->edr", grad[0, 0], nodes[connectivity])) < 0
            mirrored = connectivity[:, mirrored_nodes(block.cell, block.degree)]
            connectivity = torch.where(negative[:, None], mirrored, connectivity)
        turned[name] = connectivity
    mesh = Mesh(nodes, turned)
    if any(not torch.equal(turned[name], cells[name]) for name in cells):
        volume, flux = volume_and_flux(mesh)
        if abs(volume - flux) > 1e-4 * volume:
            raise MeshError(
                f"cells lie on top of their neighbours: they measure {volume:.6g} together, but their boundary "
                f"encloses {flux:.6g}. Nodes have crossed, or cells overlap."
            )
    return mesh


def volume_and_flux(mesh: Mesh) -> tuple[float, float]:
    """Σ_cells |V| and 1/d ∮ x·n over the boundary, x from the centre of the nodes for the sake of round-off."""
    degree, centre = mesh.dim * max(block.degree for block in mesh.blocks), mesh.nodes.mean(0)
    volume = flux = 0.0
    for domain in cell_domains(mesh, degree):
        part = geometry(mesh, domain)
        volume += float(part.weights.expand(part.points.shape[:2]).sum())
    for domain in facet_domains(mesh, "boundary", degree):
        part = geometry(mesh, domain)
        assert part.normal is not None
        flux += float((((part.points - centre) * part.normal).sum(-1) * part.weights).sum()) / mesh.dim
    return volume, flux


def tags(
    contents: Any, blocks: list[tuple[str, np.ndarray]], kinds: list[Cell], dim: int, order: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Facets as vertex tuples and cells as indices, by name; `order` is that of the kinds of cells in the mesh."""
    names = {(int(v[1]), int(v[0])): name for name, v in contents.field_data.items() if np.size(v) == 2}
    marker = next((key for m in MARKERS for key in contents.cell_data if key.lower() == m), None)
    sizes = {
        name: sum(len(rows) for k, (_, rows) in zip(kinds, blocks, strict=True) if k.name == name) for name in order
    }
    start = {name: sum(sizes[before] for before in order[:i]) for i, name in enumerate(order)}
    facets: dict[str, list[np.ndarray]] = {}
    cells: dict[str, list[np.ndarray]] = {}
    for i, (kind, (_, rows)) in enumerate(zip(kinds, blocks, strict=True)):
        if kind.dim < dim - 1:
            continue
        groups = [(name, chosen[i]) for name, chosen in contents.cell_sets.items() if not name.startswith("gmsh:")]
        values = np.asarray(contents.cell_data[marker][i]).reshape(len(rows), -1) if marker is not None else None
        if values is not None and values.shape[1] == 1 and np.issubdtype(values.dtype, np.integer):
            for value in np.unique(values):
                name = names.get((kind.dim, int(value)), str(value))
                # Gmsh's 0 means no group; names of MSH 4 are cell sets already.
                if name not in contents.cell_sets and (value or marker != "gmsh:physical"):
                    groups.append((name, np.flatnonzero(values == value)))
        for name, chosen in groups:
            if chosen is None or len(chosen) == 0:
                continue
            if kind.dim == dim:
                cells.setdefault(name, []).append(start[kind.name] + np.asarray(chosen, dtype=np.int64))
            else:
                facets.setdefault(name, []).append(rows[np.asarray(chosen, dtype=np.int64), : kind.num_vertices])
        if kind.dim == dim:
            start[kind.name] += len(rows)
    widths = {name: max(part.shape[1] for part in parts) for name, parts in facets.items()}
    padded = {
        name: np.concatenate([np.pad(p, ((0, 0), (0, widths[name] - p.shape[1])), constant_values=-1) for p in parts])
        for name, parts in facets.items()
    }
    return padded, {name: np.unique(np.concatenate(parts)) for name, parts in cells.items()}
