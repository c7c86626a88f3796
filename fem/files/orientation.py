"""Cells that run the wrong way round are turned."""

import torch
from torch import Tensor

from fem.mesh.construction import make_block, mirrored_nodes
from fem.mesh.jacobian import determinant
from fem.mesh.mesh import Mesh


def oriented(nodes: Tensor, cells: dict[str, Tensor], hanging: bool = False) -> Mesh:
    """The mesh with every cell that runs the wrong way round turned.

    A cell may also be negative because its nodes have crossed its neighbours: turned, it lies on one of them, which
    `Mesh` refuses. Parts that touch without sharing nodes are left to the caller (`fem.mesh.gaps`).
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
    return Mesh(nodes, turned, merge=False, hanging=hanging)
