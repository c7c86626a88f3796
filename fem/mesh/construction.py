"""What a mesh is made of, checked and set right: coordinates, and blocks of cells that name them."""

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.jacobian import determinant
from fem.mesh.topology import Block
from fem.reference.cells import Cell, get_cell
from fem.reference.lagrange import lagrange_element
from fem.support.checks import shown
from fem.support.transforms import mapped


def check_nodes(nodes: Tensor) -> Tensor:
    """The nodes, if they are coordinates "n d" in single or double precision and finite."""
    if not isinstance(nodes, Tensor) or nodes.dtype not in (torch.float64, torch.float32):
        found = nodes.dtype if isinstance(nodes, Tensor) else type(nodes).__name__
        raise TypeError(
            f"`Mesh(nodes=...)` must be a floating-point tensor; got {found}. It must be float64 or float32, as "
            "will be everything on the mesh: `nodes.double()` converts."
        )
    if nodes.ndim != 2 or not 1 <= nodes.shape[1] <= 3:
        raise MeshError(f"`Mesh(nodes=...)` must have shape (n, d) with d = 1, 2 or 3; got {tuple(nodes.shape)}.")
    if mapped(nodes):
        raise ValueError("`torch.vmap` over nodes would make many meshes of one; make them one after another instead.")
    if not bool(torch.isfinite(torch.stack(torch.aminmax(nodes.detach()))).all()):
        wrong = int(torch.nonzero(~torch.isfinite(nodes).all(1))[0])
        raise MeshError(f"node {wrong} has the coordinates {nodes[wrong].tolist()}.")
    return nodes


def make_block(nodes: Tensor, name: str, cells: Any) -> Block:
    """A block from connectivity; the number of columns tells the geometry degree."""
    cell = get_cell(name)
    try:
        connectivity = torch.as_tensor(cells, device=nodes.device)
    except (TypeError, ValueError, RuntimeError):
        raise MeshError(
            f"{name} cells must be integers of shape (e, v), one row per cell; got {shown(cells)}."
        ) from None
    degrees = {lagrange_element(cell, degree).num_basis: degree for degree in (1, 2, 3)}
    if connectivity.is_floating_point() or connectivity.ndim != 2 or connectivity.shape[1] not in degrees:
        raise MeshError(
            f"{name} cells must be integers of shape (e, v) with v = {', '.join(map(str, degrees))} "
            f"(degree 1, 2, 3); got {connectivity.dtype} of shape {tuple(connectivity.shape)}."
        )
    if len(connectivity) == 0:
        raise MeshError(f"`Mesh(cells=...)` has no {name} cells.")
    connectivity = connectivity.long()
    lowest, highest = (int(n) for n in torch.aminmax(connectivity))
    if lowest < 0 or highest >= len(nodes):
        wrong = int(torch.nonzero(((connectivity < 0) | (connectivity >= len(nodes))).any(1))[0])
        remedy = " Nodes count from 0: subtract 1." if lowest == 1 and highest == len(nodes) else ""
        raise MeshError(
            f"{name} {wrong} names the nodes {connectivity[wrong].tolist()}, but there are {len(nodes)} nodes.{remedy}"
        )
    vertices = connectivity[:, : cell.num_vertices].unbind(1)
    repeated = sum((first == second for first, second in combinations(vertices, 2)), torch.zeros_like(vertices[0]))
    if bool(repeated.any()):
        wrong = int(torch.nonzero(repeated)[0])
        raise MeshError(
            f"{name} {wrong} is degenerate: two of its vertices {[int(v[wrong]) for v in vertices]} are one."
        )
    return Block(cell, degrees[connectivity.shape[1]], connectivity)


def turn_if_reversed(nodes: Tensor, block: Block) -> Block:
    """The block with its cells mirrored if every one of them runs clockwise."""
    if block.cell.dim != nodes.shape[1]:
        return block
    centre = block.element.tabulate(
        torch.tensor(block.cell.vertices, dtype=nodes.dtype, device="cpu").mean(0, keepdim=True)
    )
    assert centre.grad is not None
    jacobian = torch.einsum("ar,ead->edr", centre.grad[0, 0].to(nodes), nodes.detach()[block.connectivity])
    if not bool((determinant(jacobian) < 0).all()):
        return block
    return Block(block.cell, block.degree, block.connectivity[:, mirrored_nodes(block.cell, block.degree)])


def mirrored_nodes(cell: Cell, degree: int) -> list[int]:
    """The node at the mirror image of each node: an interval is reversed, other cells swap their first two axes."""
    nodes = lagrange_element(cell, degree).nodes
    mirrored = 1 - nodes if cell.dim == 1 else torch.cat([nodes[:, [1, 0]], nodes[:, 2:]], 1)
    return torch.cdist(mirrored, nodes).argmin(1).tolist()
