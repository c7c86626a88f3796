"""Operators on grids as stencils: for each offset between cells one array, with the coupling at every node.

A Lagrange space of degree p on a grid has one *type* of dofs for each position inside a grid cell (and component): type
t, an image over the vertices of the grid, holds the dofs at position t/p behind each vertex; those behind the last
vertex of an axis do not exist and are fixed. The coupling of the dof of type a at vertex i with that of type b at
vertex i + δ is the entry S[a, b, δ](i) of an array, and symmetry halves their number:

    y_a(i) += S(i) x_b(i + δ),        y_b(i + δ) += S(i) x_a(i).

Images are flattened, batch and all axes together, x fastest, with zeros (the halo) at both ends. A shift by δ is then
one by a fixed number of places, whatever the dimension; where it leaves a row or an item the entry of S is zero. So a
product is a few passes over contiguous memory, in place, and nothing is ever gathered.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement, product
from math import prod

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from fem.forms.discrete import Hessian
from fem.forms.grid_integral import GridHessian
from fem.kernels.grid_inputs import Chunk
from fem.space.space import AnySpace, FunctionSpace
from fem.support.portions import at_a_time
from solvers.operators.workspace import Buffers

Key = tuple[int, int, tuple[int, ...]]  # row type, column type, offset between their cells, slowest axis first


@dataclass(frozen=True)
class StencilGrid:
    """The images of a batch of dof vectors: `vertices` per axis, degree per axis (both slowest axis first).

    Along axes that are `periodic` the last vertex is the first one once more; where none is, that is empty.
    """

    vertices: tuple[int, ...]
    degrees: tuple[int, ...]
    components: int = 1
    batch: int = 1
    periodic: tuple[bool, ...] = ()

    @property
    def dim(self) -> int:
        return len(self.vertices)

    @cached_property
    def types(self) -> list[tuple[int, ...]]:
        """The position inside a cell, in units of 1/p and slowest axis first, and the component of each type."""
        return [(*t, c) for *t, c in product(*map(range, self.degrees), range(self.components))]

    @property
    def size(self) -> int:
        """Entries of one type's images, all items together."""
        return self.batch * prod(self.vertices)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        return tuple(prod(self.vertices[k + 1 :]) for k in range(self.dim))

    @cached_property
    def halo(self) -> int:
        """Zeros at either end: as many as the largest shift."""
        return sum(self.strides)

    def shift(self, offset: tuple[int, ...]) -> int:
        return sum(o * s for o, s in zip(offset, self.strides, strict=True))

    def buffer(
        self,
        like: Tensor,
        rows: int | None = None,
        dtype: torch.dtype | None = None,
        memory: Buffers | None = None,
    ) -> Float[Tensor, "t m"]:
        """Zeros for one flattened image per type (or for so many), halo included."""
        rows = len(self.types) if rows is None else rows
        return (memory or Buffers()).zeros(like, rows, self.size + 2 * self.halo, dtype=dtype)

    def shifted(self, buffer: Float[Tensor, "*t m"], shift: int = 0) -> Float[Tensor, "*t k"]:
        """The flattened images in a buffer without halo, or the neighbours of their entries so many places on."""
        return buffer[..., self.halo + shift : self.halo + shift + self.size]

    def start(self, row: int, shift: int = 0) -> int:
        """Where in a buffer the flattened image of a row begins, or its neighbours so many places on."""
        return row * (self.size + 2 * self.halo) + self.halo + shift

    def along(self, buffer: Float[Tensor, "*t m"], axis: int, shift: int = 0) -> Float[Tensor, "*t o k i"]:
        """The images with slower axes (and the batch), one axis and faster axes apart."""
        n, stride = self.vertices[axis], self.strides[axis]
        return self.shifted(buffer, shift).unflatten(-1, (self.size // (n * stride), n, stride))

    def items(self, flat: Tensor) -> Tensor:
        """Flattened images "t k" as "b t n", item by item."""
        return flat.unflatten(-1, (self.batch, -1)).transpose(0, 1)

    @cached_property
    def keys(self) -> dict[Key, int]:
        """Row of each coupling in the data of a stencil: diagonals first, then one of each symmetric pair.

        Along an axis of one vertex, which coarse grids may have, there is nothing to couple with.
        """
        zero, types, single = (0,) * self.dim, self.types, [k for k, n in enumerate(self.vertices) if n == 1]
        found = [(a, a, zero) for a in range(len(types))]
        for a, row in enumerate(types):
            for b, column in enumerate(types[a:], a):
                offsets = (o for o in reachable(row, column) if not any(o[k] for k in single))
                found += [(a, b, o) for o in offsets if a < b or o > zero]
        return {key: k for k, key in enumerate(found)}

    @cached_property
    def terms(self) -> list[list[tuple[int, int, int, int]]]:
        """What adds to each type of dofs in a product A x: row of the data and shift, type of x and shift.

        Couplings are kept with the first dof of a pair: for the second they lie where the first does.
        """
        rows: list[list[tuple[int, int, int, int]]] = [[] for _ in self.types]
        for (a, b, offset), k in self.keys.items():
            shift = self.shift(offset)
            rows[a].append((k, 0, b, shift))
            if k >= len(self.types):
                rows[b].append((k, -shift, a, -shift))
        return rows

    def ends(self, flat: Shaped[Tensor, "t k"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of what is one, the first and the last dofs of each periodic axis."""
        shaped = flat.unflatten(1, (self.batch, *self.vertices)).unflatten(0, (*self.degrees, self.components))
        for k, periodic in enumerate(self.periodic):
            if periodic:
                vertices = shaped.select(k, 0)  # without the dofs inside cells
                yield vertices.select(self.dim + 1 + k, 0), vertices.select(self.dim + 1 + k, -1)

    def averaging(self, flat: Float[Tensor, "t k"]) -> Callable[[], None]:
        """Q, in place: dofs at both ends of periodic axes get their mean."""
        pairs = list(self.ends(flat))

        def run() -> None:
            for first, last in pairs:
                last.copy_(first.add_(last).mul_(0.5))

        return run

    def averaged(self, flat: Float[Tensor, "t k"]) -> Float[Tensor, "t k"]:
        """Q of flattened images; they themselves where no axis is periodic."""
        if self.periodic:
            flat = flat.clone()
            self.averaging(flat)()
        return flat

    def periodic_basis(self, like: Tensor) -> Float[Tensor, "N m"]:
        """T of one item: a column of ones for all dofs that are the same one."""
        one = replace(self, batch=1)
        number = torch.arange(len(self.types) * one.size, device=like.device).view(len(self.types), -1)
        for first, last in one.ends(number):
            last.copy_(first)
        return one_hot(number.flatten().unique(return_inverse=True)[1]).to(like)

    def image(self, flat: Shaped[Tensor, "k"], dof_type: tuple[int, ...]) -> Tensor:
        """The entries of one type that exist, "b *vertices"."""
        shaped = flat.view(self.batch, *self.vertices)
        for k, t in enumerate(dof_type[:-1]):
            shaped = shaped.narrow(1 + k, 0, self.vertices[k] - (t > 0))
        return shaped

    def dofs_of_type(self, v: Tensor, dof_type: tuple[int, ...]) -> Tensor:
        """The dofs of one type "b *k", a view into dofs "b n c"."""
        nodes = [p * (n - 1) + 1 for n, p in zip(self.vertices, self.degrees, strict=True)]
        shaped = v.unflatten(1, nodes)[..., dof_type[-1]]
        return shaped[(slice(None), *(slice(t, None, p) for t, p in zip(dof_type, self.degrees, strict=False)))]

    def pack(self, v: Tensor, flat: Tensor) -> Tensor:
        """Dofs "b n c" into flattened images "t k"; what does not exist is left alone."""
        for row, dof_type in zip(flat, self.types, strict=True):
            self.image(row, dof_type).copy_(self.dofs_of_type(v, dof_type))
        return flat

    def unpack(self, flat: Tensor, dtype: torch.dtype | None = None, out: Tensor | None = None) -> Tensor:
        """Flattened images "t k" as dofs "b n c"."""
        nodes = prod(p * (n - 1) + 1 for n, p in zip(self.vertices, self.degrees, strict=True))
        v = flat.new_empty(self.batch, nodes, self.components, dtype=dtype) if out is None else out
        for row, dof_type in zip(flat, self.types, strict=True):
            self.dofs_of_type(v, dof_type).copy_(self.image(row, dof_type))
        return v

    def fixed_images(self, fixed: Bool[Tensor, "b n c"] | None, like: Tensor) -> Bool[Tensor, "t k"]:
        """Flattened images that are true at fixed dofs and at those that do not exist."""
        flat = torch.ones(len(self.types), self.size, dtype=torch.bool, device=like.device)
        if fixed is not None:
            return self.pack(fixed, flat)
        for row, dof_type in zip(flat, self.types, strict=True):
            self.image(row, dof_type).fill_(False)
        return flat


def grid_of(space: AnySpace, batch: int) -> StencilGrid | None:
    """The grid of a Lagrange space on a mesh made as a grid of intervals, quadrilaterals or hexahedra; or None."""
    if not isinstance(space, FunctionSpace) or space.mesh.grid is None:
        return None
    if not (space.is_lagrange and all(set(e.cell.factors) == {1} for e in space.elements)):
        return None
    dim = space.mesh.dim
    return StencilGrid(tuple(n + 1 for n in space.mesh.grid[::-1]), (space.degree,) * dim, space.components or 1, batch)


@dataclass(frozen=True, eq=False)
class Stencil:
    """A symmetric operator on a grid: `data` holds one flattened image with halo for each of `grid.keys`.

    Buffers for it, and what is made of it, come from its `memory`.
    """

    grid: StencilGrid
    data: Float[Tensor, "z m"]
    memory: Buffers = field(default_factory=Buffers)

    @classmethod
    def zeros(
        cls, grid: StencilGrid, like: Tensor, memory: Buffers | None = None, dtype: torch.dtype | None = None
    ) -> "Stencil":
        memory = memory or Buffers()
        return cls(grid, grid.buffer(like, len(grid.keys), dtype, memory), memory)

    def to(self, dtype: torch.dtype) -> "Stencil":
        """The same in another precision."""
        if dtype == self.data.dtype:
            return self
        copy = Stencil.zeros(self.grid, self.data, self.memory, dtype)
        copy.data.copy_(self.data)
        return copy

    def buffer(self, grid: StencilGrid | None = None) -> Float[Tensor, "t m"]:
        """Zeros for dofs of its grid or another one."""
        return (grid or self.grid).buffer(self.data, memory=self.memory)

    def add(self, hessian: Hessian, within: Chunk | None = None) -> None:
        """Add the second derivative of an integral over cells or facets of the grid.

        Args:
            within: cells of a larger grid, of which this one has the vertices.
        """
        images = self.grid.shifted(self.data).unflatten(-1, (self.grid.batch, *self.grid.vertices)).unbind()
        if within is None:
            hessian.add_to_images(images, vertex_images(self.grid))
        else:
            assert isinstance(hessian, GridHessian)
            hessian.add_to_images(images, vertex_images(self.grid), within)

    @property
    def diagonal(self) -> Float[Tensor, "t k"]:
        return self.grid.shifted(self.data[: len(self.grid.types)])

    def fix(self, fixed: Bool[Tensor, "t k"], diagonal: float) -> None:
        """Clear rows and columns of fixed dofs in place, but for a diagonal entry."""
        grid = self.grid
        index = [torch.nonzero(row).flatten() + grid.halo for row in fixed]
        types, flat, width = len(grid.types), self.data.view(-1), self.data.shape[1]
        for a, fill in enumerate(index):
            self.data[a].index_fill_(0, fill, diagonal)
            if rows := [k for (row, _, _), k in grid.keys.items() if row == a and k >= types]:  # one after another
                self.data[rows[0] : rows[-1] + 1].index_fill_(1, fill, 0)
            # Columns lie elsewhere in each row: some rows at a time, so that memory stays small.
            starts = [
                k * width - grid.shift(o) for (_, column, o), k in grid.keys.items() if column == a and k >= types
            ]
            for some in torch.tensor(starts, device=fill.device).split(at_a_time(len(fill), fill)):
                flat.index_fill_(0, (some[:, None] + fill).flatten(), 0)

    def place(self, a: int, b: int, offset: tuple[int, ...]) -> tuple[int, int]:
        """Row of the data and shift of A(i, a; i + δ, b): couplings are kept once for both dofs."""
        if (k := self.grid.keys.get((a, b, offset))) is not None:
            return k, 0
        return self.grid.keys[b, a, tuple(-o for o in offset)], self.grid.shift(offset)

    def entries(self, a: int, b: int, offset: tuple[int, ...], axis: int) -> Float[Tensor, "o k i"]:
        """A(i, a; i + δ, b) for all i, one axis apart."""
        k, shift = self.place(a, b, offset)
        return self.grid.along(self.data[k], axis, shift)

    def dense(self) -> Float[Tensor, "b N N"]:
        """The matrix of each item, type after type."""
        grid, n, t = self.grid, prod(self.grid.vertices), len(self.grid.types)
        dense = self.data.new_zeros(grid.batch, t, n, t, n)
        for (a, b, offset), k in grid.keys.items():
            shift = grid.shift(offset)
            values = grid.shifted(self.data[k]).view(grid.batch, n)[:, max(-shift, 0) : n - max(shift, 0)]
            dense[:, a, :, b].diagonal(shift, 1, 2).add_(values)
            if k >= t:
                dense[:, b, :, a].diagonal(-shift, 1, 2).add_(values)
        return dense.reshape(grid.batch, t * n, t * n)


# -- from element matrices ---------------------------------------------------------------------------------------------

LocalDof = tuple[int, tuple[int, ...]]  # type, and the corner of the cell behind which it lies


def coupling(row: LocalDof, column: LocalDof) -> Key:
    """The key that an entry of an element matrix belongs to."""
    return row[0], column[0], tuple(j - i for i, j in zip(row[1], column[1], strict=True))


@lru_cache(maxsize=64)
def vertex_images(grid: StencilGrid) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """For each pair A ≤ B of the local dofs of a cell, x fastest and components inmost, the row of the stencil's data
    that keeps their coupling, and the corner of the cell where it lies."""
    local = []
    for position in product(*(range(p + 1) for p in grid.degrees)):
        pairs = [divmod(k, p) for k, p in zip(position, grid.degrees, strict=True)]
        inside, corner = tuple(r for _, r in pairs), tuple(q for q, _ in pairs)
        local += [(grid.types.index((*inside, c)), corner) for c in range(grid.components)]
    found = []
    for i, j in combinations_with_replacement(range(len(local)), 2):
        row, column = (local[i], local[j]) if coupling(local[i], local[j]) in grid.keys else (local[j], local[i])
        found.append((grid.keys[coupling(row, column)], row[1]))
    return tuple(found)


def reachable(row: tuple[int, ...], column: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    """Offsets between the cells of two types whose dofs share a cell."""
    return product(*(range(-(s == 0), (t == 0) + 1) for t, s in zip(column[:-1], row[:-1], strict=True)))


def replaced_items(stencil: Stencil, items: Bool[Tensor, "b"]) -> Stencil:
    """The identity for some items: one that is not finite would reach its neighbours through products with zeros."""
    if not bool(items.any()):
        return stencil
    grid, data = stencil.grid, stencil.data.clone()
    shaped = grid.shifted(data).unflatten(-1, (grid.batch, -1))
    shaped[:, items] = 0
    shaped[: len(grid.types), items] = 1
    return Stencil(grid, data, stencil.memory)
