"""Fields as VTK files for ParaView and its kin: every polynomial space written as what it is, curved cells included.

A file holds one Lagrange node set, of the highest degree among geometry and fields, and everything is evaluated there,
which is exact: degree 1 becomes VTK's linear cells, degree 2 its quadratic ones, degree 3 its Lagrange cells. Where a
field may jump between cells, nodes are not shared; one value per cell is cell data. A file is written beside its place
and moved there when complete, so that no reader ever sees half of one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.files.node_order import exchanged_edges
from fem.reference.cells import Cell
from fem.reference.discontinuous import Discontinuous
from fem.reference.lagrange import Lagrange, lagrange_element
from fem.space.cell_dofs import CellDofs
from fem.space.evaluation import values_in_cells
from fem.space.field import Function
from fem.space.space import AnySpace, FunctionSpace, MixedSpace
from fem.support.checks import check_kind, shown
from fem.support.files import explained, put
from fem.support.modes import outside_modes

KINDS = {
    "interval": ("line", "line3", "VTK_LAGRANGE_CURVE"),
    "triangle": ("triangle", "triangle6", "VTK_LAGRANGE_TRIANGLE"),
    "quadrilateral": ("quad", "quad9", "VTK_LAGRANGE_QUADRILATERAL"),
    "tetrahedron": ("tetra", "tetra10", "VTK_LAGRANGE_TETRAHEDRON"),
    "hexahedron": ("hexahedron", "hexahedron27", "VTK_LAGRANGE_HEXAHEDRON"),
}
Fields = Mapping[str, Tensor | Function]


@outside_modes
def write_vtk(path: str | os.PathLike[str], V: AnySpace, fields: Fields, cell_data: Fields | None = None) -> Path:
    """Write fields over the mesh of V to a compressed `.vtu` file; returns its path.

    Args:
        path: ends in `.vtu`; its directory exists.
        V: the space of the fields given as tensors.
        fields: name → dofs "n" or "n c" on V, or a field `W.function(values)` on any space over the same mesh (the way
            to write what lives in a `MixedSpace`). Vectors with two components get a third, 0, as VTK expects. Stresses
            and fluxes keep their jumps as fields of `Discontinuous(p)`, made by `project`. Unknowns of `Reals` are
            written as constants.
        cell_data: name → one value per cell, "e", "e c" or "e i j", block after block, or `V.per_cell(values)`.
            Matrices of up to 3 × 3 become tensors, filled up with 0.

    Gradients are cut, CUDA tensors copied, single precision and integers kept, NaN written as such. Spline fields of a
    degree above 3 are interpolated by cubics on each span; bubbles of degree 4 (`Mini` on tetrahedra) vanish there.

    Raises:
        ValueError: another file name extension, a batch of fields, a wrong shape, a field over another mesh.
        OSError: the directory is missing or cannot be written to; an existing file stays as it was.
    """
    path = checked_path(path, ".vtu")
    check_mappings("write_vtk", fields, cell_data)
    points, blocks, numbering, degree = nodes_of(V, fields.values())
    write_vtu(path, points, blocks, *data_of(V, fields, cell_data or {}, numbering, degree))
    return path


def write_pvd(
    path: str | os.PathLike[str],
    V: AnySpace,
    times: Sequence[float] | Tensor,
    fields: Fields,
    cell_data: Fields | None = None,
) -> Path:
    """Write a time series: one `.vtu` file per time in the folder beside `path` that bears its name, then the `.pvd`.

    Args:
        times: "t", finite.
        fields, cell_data: as for `write_vtk`, each with a leading axis of times, "t n", "t n c" and "t e …".

    `flow.pvd` lists `flow/flow_0000.vtu`, …; it is written last, so that it never lists a missing file.

    Raises:
        ValueError: as for `write_vtk`; times that are not finite or differ in number from the fields' leading axes.
        OSError: the directory is missing or cannot be written to.
    """
    path = checked_path(path, ".pvd")
    check_mappings("write_pvd", fields, cell_data)
    check_kind("write_pvd", "times", times, Sequence | Tensor | np.ndarray, "a sequence of numbers")
    try:
        instants = [float(t) for t in times]
    except (TypeError, ValueError):
        raise ValueError(f"`write_pvd(times=...)` needs one or more finite times; got {shown(times)}.") from None
    if not instants or not np.isfinite(instants).all():
        raise ValueError(f"`write_pvd(times=...)` needs one or more finite times; got {instants}.")
    cell_data = cell_data or {}
    for name, field in (*fields.items(), *cell_data.items()):
        values = field.values if isinstance(field, Function) else field
        check_kind("write_pvd", name, values, Tensor, "a tensor with a leading axis of times, or a field of such")
        shape = tuple(values.shape)
        if shape[:1] != (len(instants),):
            raise ValueError(f"{name!r} needs a leading axis of {len(instants)} times; got shape {shape}.")
    series = TimeSeries(path, V)

    def frame(i: int) -> tuple[dict[str, Any], dict[str, Any]]:
        item = lambda f: replace(f, values=f.values[i]) if isinstance(f, Function) else f[i]  # noqa: E731
        at, cells = ({name: item(f) for name, f in given.items()} for given in (fields, cell_data))
        return at, cells

    series.check(*frame(0))  # what is wrong with one time is wrong with all: raise before anything is written
    for i, instant in enumerate(instants):
        series.write(instant, *frame(i), listed=i == len(instants) - 1)
    return path


class TimeSeries:
    """A `.pvd` file that grows: `write` adds the fields at a further time, and what is there can be opened at any time.

    Args:
        path: ends in `.pvd`; its directory exists.
        V: the space of the fields given as tensors.
    """

    @outside_modes
    def __init__(self, path: str | os.PathLike[str], V: AnySpace):
        self.path, self.space = checked_path(path, ".pvd"), V
        self.rows: list[str] = []
        self._nodes: tuple[np.ndarray, list[tuple[str, np.ndarray]], CellDofs, int] | None = None

    def check(self, fields: Fields, cell_data: Fields | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is written of the fields; those of all times are of the same spaces.

        Raises:
            ValueError, TypeError: as for `write_vtk`.
        """
        check_mappings("TimeSeries", fields, cell_data)
        if self._nodes is None:
            self._nodes = nodes_of(self.space, fields.values())
        return data_of(self.space, fields, cell_data or {}, *self._nodes[2:])

    @outside_modes
    def write(self, time: float, fields: Fields, cell_data: Fields | None = None, listed: bool = True) -> Path:
        """Write the next `.vtu` file, and the list of all so far after it unless not `listed`; returns its path.

        Raises:
            ValueError, TypeError, OSError: as for `write_vtk`.
        """
        data, folder = self.check(fields, cell_data), self.path.with_suffix("")
        assert self._nodes is not None
        with explained(self.path):
            folder.mkdir(exist_ok=True)
        file = folder / f"{self.path.stem}_{len(self.rows):04d}.vtu"
        write_vtu(file, *self._nodes[:2], *data)
        self.rows.append(f'<DataSet timestep="{time!r}" file="{folder.name}/{file.name}"/>')
        if listed:
            head = ['<?xml version="1.0"?>', '<VTKFile type="Collection" version="0.1">', "<Collection>"]
            text = "\n".join([*head, *self.rows, "</Collection>", "</VTKFile>", ""])
            put(self.path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return file


def checked_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """The path, if it ends as it must."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"files are written to a path, the first argument; got {shown(path)}.")
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"the file name must end in {suffix}; got {str(path)!r}.")
    return path


def check_mappings(call: str, fields: Any, cell_data: Any) -> None:
    """Raise where fields or cell data have no names."""
    check_kind(call, "fields", fields, Mapping, 'a mapping {name: field}, such as {"u": u}')
    check_kind(call, "cell_data", cell_data if cell_data is not None else {}, Mapping, "a mapping {name: values}")
    for name in (*fields, *(cell_data or ())):
        check_kind(call, "fields", name, str, "a mapping whose keys are names")


def output_degree(V: AnySpace, others: list[FunctionSpace]) -> int:
    """The highest degree of geometry and fields, in any direction of a spline, 3 at most."""
    degrees = [block.degree for block in V.mesh.blocks]
    for space in (*V.fields, *others):
        degrees += [space.superdegree, *(max(getattr(element, "degrees", (0,))) for element in space.elements)]
    return min(max(degrees), 3)


def nodes_of(V: AnySpace, fields: Any) -> tuple[np.ndarray, list[tuple[str, np.ndarray]], CellDofs, int]:
    """Points "n 3", VTK's cells, and the Lagrange numbering of the output degree that both follow."""
    if not hasattr(V, "fields"):
        raise TypeError(f"VTK files are written from a function space; got {type(V).__name__}.")
    others = [f.space for f in fields if isinstance(f, Function)]
    mesh, degree, spaces = V.mesh, output_degree(V, others), [*V.fields, *others]
    told = [space for space in spaces if space.is_nodal or space.moments is not None]
    jumps = any(space.continuity < 0 and space.degree for space in told)
    numbering = FunctionSpace(mesh, Discontinuous(degree) if jumps else Lagrange(degree)).cell_dofs
    with torch.no_grad():
        points = mesh.nodes.new_zeros(numbering.count, 3)
        for i, (block, numbers) in enumerate(zip(mesh.blocks, numbering, strict=True)):
            position, _, _ = mesh.map(i, None, lagrange_element(block.cell, degree).nodes.to(mesh.nodes))
            points[numbers, : position.shape[-1]] = position
    blocks = []
    for block, numbers in zip(mesh.blocks, numbering, strict=True):
        cells = numbers.cpu().numpy()
        if KINDS[block.cell.name][degree - 1] == "VTK_LAGRANGE_HEXAHEDRON":
            # meshio writes format 0.1, in which two edges of these hexahedra are numbered the other way round.
            cells = cells[:, exchanged_edges(cells.shape[1])]
        blocks.append((KINDS[block.cell.name][degree - 1], cells))
    return as_array(points), blocks, numbering, degree


def data_of(
    V: AnySpace, fields: Fields, cell_data: Fields, numbering: CellDofs, degree: int
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Point data and cell data; fields of one value per cell are the latter."""
    point_data, by_cell = {}, dict(cell_data)
    for name, field in fields.items():
        space, values = checked_field(name, field, V)
        if space.family != Discontinuous(0):
            point_data[name] = at_nodes(name, space, values, numbering, degree)
        elif name in by_cell:
            raise ValueError(f"{name!r} is both a field of one value per cell and cell data; give one another name.")
        else:
            by_cell[name] = field
    return point_data, {name: per_cell(name, values, V) for name, values in by_cell.items()}


def at_nodes(name: str, space: FunctionSpace, values: Tensor, numbering: CellDofs, degree: int) -> np.ndarray:
    """The field at the output nodes, "n" or "n c" with two components padded to three."""
    if not (space.is_lagrange and space.degree == numbering.degree):
        if not values.is_floating_point():
            values = values.to(space.dtype)
        found = values.new_zeros(numbering.count, *space.value_shape)
        local = values_at(space, values, lambda cell: lagrange_element(cell, degree).nodes)
        for part, numbers in zip(local, numbering, strict=True):
            found[numbers] = part
        scale = 1e-3 * float(values.nan_to_num(0, 0, 0).abs().max())
        for part, numbers in zip(local, numbering, strict=True):
            if not space.is_lagrange and not torch.allclose(found[numbers], part, 0, scale, equal_nan=True):
                raise ValueError(f"field {name!r} jumps between cells, which a file of shared nodes cannot show.")
        values = found
    return as_array(padded(values))


def checked_field(name: str, field: Tensor | Function, V: AnySpace) -> tuple[FunctionSpace, Tensor]:
    """The space and the dofs of one field, without gradient."""
    space, values = (field.space, field.values) if isinstance(field, Function) else (V, field)
    if not isinstance(values, Tensor):
        raise TypeError(f"field {name!r} must be a tensor of dofs or `V.function(values)`; got {type(field).__name__}.")
    if isinstance(space, MixedSpace):
        raise ValueError(
            f"field {name!r} lives in a mixed space; pass its parts as fields, "
            "`[W.function(part) for W, part in zip(V.fields, V.split(u))]`."
        )
    if space.mesh.topology is not V.mesh.topology:
        raise ValueError(
            f"field {name!r} is over another mesh; `V.interpolate(lambda x: W.evaluate(w, x))` carries it over."
        )
    if tuple(values.shape) != space.shape:
        if tuple(values.shape[-len(space.shape) :]) == space.shape:
            raise ValueError(
                f"field {name!r} is a batch of shape {tuple(values.shape[: -len(space.shape)])}; pick an item, "
                "`u[0]`, or write a time series with `write_pvd`."
            )
        raise ValueError(f"field {name!r} must have the shape {space.shape} of its space; got {tuple(values.shape)}.")
    return space, values.detach().to(space.device)


def values_at(space: FunctionSpace, values: Tensor, points: Callable[[Cell], Tensor]) -> list[Tensor]:
    """Block by block, the values "e q" or "e q c" of a function at reference points, by kind of cell."""
    with torch.no_grad():
        u = values if values.is_floating_point() else values.to(space.dtype)
        return [values_in_cells(space, u, i, None, points(b.cell)) for i, b in enumerate(space.mesh.blocks)]


def per_cell(name: str, values: Tensor | Function, V: AnySpace) -> list[np.ndarray]:
    """Cell data, block by block."""
    count = V.mesh.num_cells
    if isinstance(values, Function) and values.space.family == Discontinuous(0):
        shape, values = values.value_shape, checked_field(name, values, V)[1]
        values = values.unflatten(-1, shape) if len(shape) == 2 else values
    if not isinstance(values, Tensor) or values.ndim not in (1, 2, 3) or len(values) != count:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"cell data {name!r} must be a tensor of shape ({count},), ({count}, c) or ({count}, i, j); got {found}."
        )
    return np.split(as_array(padded(values.detach())), V.mesh.block_starts[1:-1])


def padded(values: Tensor) -> Tensor:
    """What VTK takes for scalars, vectors and tensors: one component without its axis, two or a matrix filled up with
    zeros to three in each direction, matrices row by row."""
    if values.ndim == 3:
        fill = [3 - min(n, 3) for n in values.shape[1:]]
        fits = max(values.shape[1:]) <= 3
        return (torch.nn.functional.pad(values, (0, fill[1], 0, fill[0])) if fits else values).flatten(1)
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return torch.nn.functional.pad(values, (0, 1)) if values.ndim == 2 and values.shape[1] == 2 else values


def as_array(values: Tensor) -> np.ndarray:
    """A NumPy array of a type that VTK knows."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.to(torch.uint8 if values.dtype is torch.bool else values.dtype).cpu().numpy()


def write_vtu(
    path: Path,
    points: np.ndarray,
    blocks: list[tuple[str, np.ndarray]],
    point_data: dict[str, Any],
    cell_data: dict[str, Any],
) -> None:
    import meshio

    contents = meshio.Mesh(points, list(blocks), point_data, cell_data)
    put(path, lambda temporary: contents.write(temporary, file_format="vtu", compression="zlib"))
