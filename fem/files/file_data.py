"""Data that a file brings with a mesh: values at its nodes as dofs of functions, and values of its cells."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.reference.lagrange import Lagrange
from fem.space.cell_dofs import CellDofs
from fem.space.space import FunctionSpace
from fem.support.checks import check_kind, did_you_mean


class FileData(Mapping[str, Tensor]):
    """Data at the nodes and in the cells of a mesh, by the names in its file.

    `data["u"]` are dofs "n" or "n c" of the function on `FunctionSpace(mesh, Lagrange(p), components=c)`, p the degree
    of the mesh's geometry, or one value per cell, "e" or "e c"; `data.dofs("u", V)` are those on another space.

    Attributes:
        mesh: the mesh that was read with it.
        point_data: name → values "n" or "n c", in the order of `mesh.nodes` and of its type.
        cell_data: name → values "e" or "e c", in the order of the cells; whole numbers stay such.

    Vectors of three components on a mesh in the plane lose the third where it is 0 everywhere, and 3 × 3 matrices their
    third row and column: files pad with them. Matrices are "e 4" or "e 9" row by row, `.unflatten(-1, (2, 2))`.
    """

    def __init__(self, mesh: Mesh, point_data: Mapping[str, Tensor], cell_data: Mapping[str, Tensor]):
        self.mesh, self.point_data, self.cell_data = mesh, dict(point_data), dict(cell_data)

    def __getitem__(self, name: str) -> Tensor:
        if name in self.point_data and name in self.cell_data:
            raise ValueError(
                f"{name!r} is data of nodes and of cells: `.point_data[{name!r}]`, `.cell_data[{name!r}]`."
            )
        if name in self.cell_data:
            return self.cell_data[name]
        if name not in self.point_data:
            raise KeyError(f"no data {name!r}; there are {', '.join(map(repr, self)) or 'none'}")
        degree = max(block.degree for block in self.mesh.blocks)
        topology = self.mesh.topology
        numbering = CellDofs(topology, topology.num_lagrange_nodes(degree), degree)
        return on_nodes(self.mesh, self.point_data[name], Lagrange(degree), numbering, name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.point_data, *self.cell_data)))

    def __len__(self) -> int:
        return len({*self.point_data, *self.cell_data})

    def __repr__(self) -> str:
        def shapes(data: dict[str, Tensor]) -> str:
            return ", ".join(f"{name!r} {tuple(values.shape)}" for name, values in data.items()) or "none"

        return f"FileData(at nodes: {shapes(self.point_data)}; in cells: {shapes(self.cell_data)})"

    def dofs(self, name: str, V: FunctionSpace) -> Tensor:
        """The dofs "n" or "n c" on V of the function that the data are.

        Data at nodes are continuous, polynomials of the geometry's degree on each cell; data of cells are constants,
        for `Discontinuous(0)`. As parameters of a density, `V.per_cell(data[name])` takes the latter on any space.

        Raises:
            ValueError: no such data; a space over another mesh, without nodes, with another number of components, or of
                a lower degree than the function has.
        """
        check_kind("dofs", "V", V, FunctionSpace, "a `FunctionSpace` over the mesh of the file")
        if name not in self:
            known = ", ".join(map(repr, self)) or "none"
            raise ValueError(f"there are no data {name!r}, but {known}.{did_you_mean(name, tuple(self))}")
        if V.mesh.topology is not self.mesh.topology:
            raise ValueError(
                f"{name!r} belongs to another mesh than the space; make the space over the mesh just read."
            )
        if not V.is_nodal:
            raise ValueError(f"{name!r} are values at nodes, which {V.family} has not; use `Lagrange` and project.")
        constant = V.is_discontinuous and V.degree == 0
        if not constant and name not in self.point_data:
            raise ValueError(f"{name!r} are values of cells: `Discontinuous(0)` holds them, {V.family} does not.")
        values = (self.cell_data if constant and name in self.cell_data else self.point_data)[name].to(V.dtype)
        if V.components == 1 and values.ndim == 1:
            values = values[:, None]
        if V.components is not None and values.ndim == 2 and not values[:, V.components :].any():
            values = values[:, : V.components]  # the rest is padding
        have = None if values.ndim == 1 else values.shape[1]
        if have != V.components:
            raise ValueError(f"{name!r} needs a space with `components={have}`; this one has {V.components}.")
        if constant and name in self.cell_data:
            return values
        return on_nodes(self.mesh, values, V.family, V.cell_dofs, name)


def on_nodes(mesh: Mesh, values: Tensor, family: Any, numbering: CellDofs, name: str) -> Tensor:
    """Dofs of the function with these values "n" or "n c" at the mesh's nodes.

    Raises:
        ValueError: it is of a higher degree than the elements.
    """
    found = values.new_zeros(numbering.count, *values.shape[1:])
    single = torch.equal(values.float().to(values), values)  # as they come from most files
    tolerance = (1e-6 if single else 1e-12) * float(values.nan_to_num(0, 0, 0).abs().max())
    for block, dofs in zip(mesh.blocks, numbering, strict=True):
        element, local = family.on(block.cell), values[block.connectivity]
        if torch.equal(element.nodes, block.element.nodes):
            found[dofs] = local
            continue
        there = block.element.tabulate(element.nodes.to(values), 0).value[0]
        found[dofs] = new = torch.einsum("av,ev...->ea...", there, local)
        back = torch.einsum("va,ea...->ev...", element.tabulate(block.element.nodes.to(values), 0).value[0], new)
        if not torch.allclose(back, local, 0, tolerance, equal_nan=True):
            raise ValueError(
                f"{name!r} is a function of degree {block.degree} on {block.cell.name}s, which {family} cannot hold: "
                f"use `Lagrange({block.degree})`."
            )
    return found


def file_data(
    contents: Any, mesh: Mesh, number: np.ndarray, cells: list[tuple[int, np.ndarray]], left_out: list[str]
) -> FileData:
    """What a file holds at the nodes and in the cells of its mesh.

    Args:
        number: the node of the mesh that each point of the file is, or −1.
        cells: for each block of the file that is part of the mesh, its index and the numbers of its cells there.
    """
    known = np.flatnonzero(number >= 0)
    source = np.zeros(mesh.num_nodes, dtype=np.int64)
    source[number[known[::-1]]] = known[::-1]  # the first of several points that are one node
    point_data, cell_data = {}, {}
    for name, values in contents.point_data.items():
        values = np.asarray(values)
        if values.dtype.kind in "biuf" and not name.startswith("gmsh:"):
            if not np.array_equal(values[source][number[known]], values[known], equal_nan=values.dtype.kind == "f"):
                left_out.append(f"{name!r} at points that became one node, but for the first")
            point_data[name] = tensor(values[source], mesh).to(mesh.dtype)
    for name, blocks in contents.cell_data.items():
        parts = [np.asarray(blocks[i]) for i, _ in cells]
        if parts and all(part.dtype.kind in "biuf" and part.shape[1:] == parts[0].shape[1:] for part in parts):
            values = np.empty((mesh.num_cells, *parts[0].shape[1:]), np.result_type(*parts))
            for (_, numbers), part in zip(cells, parts, strict=True):
                values[numbers] = part
            cell_data[name] = tensor(values, mesh)
    return FileData(mesh, point_data, cell_data)


def tensor(values: np.ndarray, mesh: Mesh) -> Tensor:
    """Values "n" or "n c", without a padded component; floating-point numbers in the type of the mesh."""
    values = values.reshape(len(values), -1)
    for axes in (1, 2) if mesh.num_coordinates == 2 else ():
        plane, padding = [0, 1, 3, 4][: 2**axes], [2, 5, 6, 7, 8][: 4 * axes - 3]
        if values.shape[1] == 3**axes and not values[:, padding].any():
            values = values[:, plane]
    values = values[:, 0] if values.shape[1] == 1 else values
    wanted = np.float64 if values.dtype.kind == "f" else np.int64
    found = torch.tensor(values.astype(wanted), device=mesh.device)
    return found.to(mesh.dtype) if found.is_floating_point() else found
