"""Cells of degree 2 with other nodes than ours are given those that lack, or freed of those beyond, at equal geometry.

Quadrilaterals with 8 and hexahedra with 20 nodes (serendipity elements) map by polynomials that those with 9 and 27
nodes have among theirs: with the reference cell [−1, 1]ᵈ, vertices i and midpoints of edges along axis k,

    S_i = 2⁻ᵈ Π_j (1 + ξ_j ξ_ij) (Σ_j ξ_j ξ_ij − d + 1),    S_k = 2¹⁻ᵈ (1 − ξ_k²) Π_{j≠k} (1 + ξ_j ξ_ij).

Their values at the missing nodes are the weights of the nodes that there are.
"""

from functools import cache
from typing import Any

import numpy as np

from fem.errors import MeshError
from fem.files.raw import RawBlock
from fem.reference.cells import CELLS
from fem.reference.lagrange import lagrange_element

SERENDIPITY = {"quad8": ("quadrilateral", "quad9"), "hexahedron20": ("hexahedron", "hexahedron27")}
CENTRED = {"triangle7": "triangle6"}


def complete(contents: Any) -> None:
    """Makes nodes and cells of `contents` such as ours; values and sets of the new nodes follow from the old.

    Raises:
        MeshError: the additional node of a triangle with 7 is not where 6 of them put it.
    """
    start, new, keys = len(contents.points), [], []
    for i, block in enumerate(contents.cells):
        rows = np.asarray(block.data)
        if block.type in CENTRED and len(rows):
            check_centres(np.asarray(contents.points, dtype=float), rows)
            contents.cells[i] = RawBlock(CENTRED[block.type], rows[:, :-1])
        elif block.type in SERENDIPITY and len(rows):
            check_range(rows, start)
            cell, name = SERENDIPITY[block.type]
            for weights in serendipity_weights(cell):
                near = np.flatnonzero(weights)
                new.append((i, name, rows[:, near], weights[near]))
                keys.append(np.pad(np.sort(rows[:, near], 1), ((0, 0), (0, 20 - len(near))), constant_values=-1))
    if not new:
        return
    _, first, number = np.unique(np.concatenate(keys), axis=0, return_index=True, return_inverse=True)
    owners = np.concatenate([np.full(len(rows), j) for j, (_, _, rows, _) in enumerate(new)])[first]
    contents.points = extended(np.asarray(contents.points, dtype=float), new, owners, first)
    for name, values in contents.point_data.items():
        contents.point_data[name] = extended(np.asarray(values), new, owners, first)
    for name, chosen in contents.point_sets.items():
        inside = np.isin(np.arange(start), chosen).astype(np.int64)
        contents.point_sets[name] = np.flatnonzero(extended(inside, new, owners, first))
    at = 0
    for i, name, rows, _ in new:
        added = start + number.reshape(-1)[at : at + len(rows), None]
        contents.cells[i] = RawBlock(name, np.concatenate([contents.cells[i].data, added], 1))
        at += len(rows)


def extended(values: np.ndarray, new: list[tuple], owners: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Values at the old and the new nodes; of integers, which name something, those that all nodes near share, or 0."""
    starts = np.cumsum([0, *(len(rows) for _, _, rows, _ in new)])
    parts = np.zeros((len(first), *values.shape[1:]), dtype=values.dtype)
    for j, (_, _, rows, weights) in enumerate(new):
        mine = np.flatnonzero(owners == j)
        near = values[rows[first[mine] - starts[j]]]
        if values.dtype.kind == "f":
            parts[mine] = np.einsum("k,nk...->n...", weights, near)
        else:
            parts[mine] = np.where((near == near[:, :1]).all(1), near[:, 0], 0)
    return np.concatenate([values, parts])


@cache
def serendipity_weights(cell: str) -> np.ndarray:
    """Values of the serendipity functions at the nodes that the cell lacks, "new old"."""
    nodes = 2 * lagrange_element(CELLS[cell], 2).nodes.numpy() - 1
    dim = nodes.shape[1]
    corner = np.abs(nodes).sum(1) == dim
    old = np.abs(nodes).sum(1) >= dim - 1
    factors = 1 + nodes[~old][:, None] * nodes[old][None]
    at_corners = factors.prod(-1) * (factors.sum(-1) - 2 * dim + 1) / 2**dim
    along = (nodes[old] == 0).astype(float)
    at_edges = factors.prod(-1) * (1 - (nodes[~old] ** 2) @ along.T) / 2 ** (dim - 1)
    return np.where(corner[old], at_corners, at_edges)


def check_range(rows: np.ndarray, count: int) -> None:
    """Raise where cells name nodes that there are not."""
    wrong = rows[(rows < 0) | (rows >= count)]
    if len(wrong):
        raise MeshError(f"a cell names node {wrong[0]}, but there are {count} nodes.")


def check_centres(points: np.ndarray, rows: np.ndarray) -> None:
    """Raise where the last node of a triangle with 7 is not the image of its centre under the other six."""
    check_range(rows, len(points))
    corners, middles, centre = points[rows[:, :3]], points[rows[:, 3:6]], points[rows[:, 6]]
    off = np.abs(4 / 9 * middles.sum(1) - corners.sum(1) / 9 - centre).max(1)
    wrong = np.flatnonzero(off > 1e-6 * np.ptp(corners, axis=1).max(1))
    if len(wrong):
        raise MeshError(
            f"triangle {wrong[0]} has a node in its interior that moves it: 7 nodes, where there are elements with 3, "
            "6 or 10. Write the mesh with triangles of 6 nodes."
        )
