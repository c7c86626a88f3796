"""Which values continuous functions have at hanging nodes: those of the larger cell's polynomial.

u_i = Σ_j φ_j(ξ_i) u_j for each node i of a small cell's facet that is none of the large cell's, whose dofs are j and in
which the node stands at ξ_i. A j that hangs itself is replaced by what it follows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.hanging import pulled_back
from fem.space.space import FunctionSpace
from fem.support.cache import Store

SMALL = 1e-10  # coefficients that are zero but for round-off
CHAIN = 64  # so many nodes may hang on one another


@dataclass(frozen=True, eq=False)
class Followers:
    """u[nodes[row]] = Σ coefficient · u[column]: entries "m" of a matrix with a row for each hanging node "k"."""

    nodes: Int[Tensor, "k"]
    row: Int[Tensor, "m"]
    column: Int[Tensor, "m"]
    coefficient: Float[Tensor, "m"]


_kept = Store("hanging nodes", 64)


def followers(V: FunctionSpace) -> Followers:
    """Of a Lagrange space over a mesh whose nodes may hang; kept while nothing moves.

    Raises:
        ValueError: small facets that are no longer within the large one, or nodes that hang in circles.
    """
    version = V.mesh.version
    return found(V) if version is None else _kept.get(version, lambda: found(V), V)


@torch.no_grad()
def found(V: FunctionSpace) -> Followers:
    import scipy.sparse

    mesh, topology = V.mesh, V.mesh.topology
    hanging, table, x, rows = topology.hanging, topology.facets, V.dof_coordinates, []
    for i, element in enumerate(V.elements):
        for local, facet in enumerate(element.facet_nodes):  # type: ignore[attr-defined]
            own = (table.block[hanging.facets] == i) & (table.local[hanging.facets] == local)
            dofs = V.cell_dofs.of(i, table.cell[hanging.facets[own]])[:, list(facet)]
            rows.append((hanging.cells[own], dofs))
    blocks = range(len(V.elements))
    entries = [large_cell(V, block, cells, dofs, x) for cells, dofs in rows for block in blocks if len(cells)]
    if not entries:
        nothing = torch.empty(0, dtype=torch.int64, device=mesh.device)
        return Followers(nothing, nothing, nothing, x[:0, 0])
    n, width = V.num_nodes, max(element.num_basis for element in V.elements)
    wide = [(own, *(np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in rest)) for own, *rest in entries]
    node, columns, values = (np.concatenate(parts) for parts in zip(*wide, strict=True))
    slaves, first = np.unique(node, return_index=True)  # where two large cells meet, one speaks for both
    matrix = scipy.sparse.csr_array(
        (values[first].ravel(), (np.repeat(slaves, width), columns[first].ravel())), shape=(n, n)
    )
    is_slave = np.zeros(n, dtype=bool)
    is_slave[slaves] = True
    for _ in range(CHAIN):
        chained = matrix[:, np.flatnonzero(is_slave)]
        if chained.nnz == 0 or not np.abs(chained.data).max() > SMALL:
            break
        free = scipy.sparse.diags_array((~is_slave).astype(float))
        follow = scipy.sparse.diags_array(is_slave.astype(float))
        matrix = scipy.sparse.csr_array(matrix @ free + matrix @ follow @ matrix)
    else:
        raise ValueError("nodes hang on one another in circles; no cell is larger than its neighbours there.")
    matrix = matrix[slaves].tocoo()
    kept = np.abs(matrix.data) > SMALL
    row, column, value = matrix.row[kept], matrix.col[kept], matrix.data[kept]
    to = lambda a, kind: torch.as_tensor(a, dtype=kind, device=mesh.device)  # noqa: E731
    return Followers(to(slaves, torch.int64), to(row, torch.int64), to(column, torch.int64), to(value, V.dtype))


def large_cell(
    V: FunctionSpace, block: int, cells: Int[Tensor, "k"], dofs: Int[Tensor, "k m"], x: Float[Tensor, "n d"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hanging nodes, and the dofs and coefficients of the large cells of one block that they follow."""
    start, stop = V.mesh.block_starts[block : block + 2]
    own = (cells >= start) & (cells < stop)
    cells, dofs = cells[own], dofs[own]
    at, inside = pulled_back(V.mesh.nodes, V.mesh.topology, cells, x[dofs])
    if not bool(inside.all()):
        k, m = torch.nonzero(~inside)[0].tolist()
        raise ValueError(
            f"the hanging node at {x[dofs[k, m]].tolist()} is no longer on cell {int(cells[k])}: nodes of a mesh with "
            "hanging ones may move only so that small facets stay within large ones."
        )
    columns = V.cell_dofs.of(block, cells - start)[:, None].expand(-1, dofs.shape[1], -1)
    values = V.elements[block].tabulate(at.flatten(0, 1), 0).value[0].unflatten(0, dofs.shape)
    hangs = (columns != dofs[..., None]).all(-1)
    values = torch.where(values.abs() > SMALL, values, 0)
    return tuple(t[hangs].cpu().numpy() for t in (dofs, columns, values.double()))  # type: ignore[return-value]
