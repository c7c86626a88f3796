"""Determinants and inverses of 1 × 1 to 3 × 3 Jacobians in closed form, and the check that cells are not folded.

Batched LAPACK calls cost far more than the few products such small matrices need.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.errors import MeshError
from fem.reference.lagrange import lagrange_element
from fem.reference.quadrature import quadrature
from fem.support.arithmetic import sum_of


def determinant(matrix: Float[Tensor, "*s r r"]) -> Float[Tensor, "*s"]:
    """det A of matrices up to 3 × 3."""
    rows = matrix.unbind(-2)
    if len(rows) == 0:
        return matrix.new_ones(matrix.shape[:-2])
    if len(rows) == 1:
        return rows[0][..., 0]
    if len(rows) == 2:
        return rows[0][..., 0] * rows[1][..., 1] - rows[0][..., 1] * rows[1][..., 0]
    return (rows[0] * torch.linalg.cross(rows[1], rows[2])).sum(-1)


def inverse(matrix: Float[Tensor, "*s d r"], scale: Float[Tensor, "*s"]) -> Float[Tensor, "*s r d"]:
    """A⁻¹ of square matrices up to 3 × 3 with determinants `scale`; (AᵀA)⁻¹Aᵀ, the pseudo-inverse, of tall ones."""
    d, r = matrix.shape[-2:]
    if d != r:
        gram = matrix.mT @ matrix
        return inverse(gram, determinant(gram)) @ matrix.mT
    return 1 / matrix if r == 1 else adjugate(matrix) / scale[..., None, None]


def adjugate(matrix: Float[Tensor, "*s r r"]) -> Float[Tensor, "*s r r"]:
    """A⁻¹ det A of 2 × 2 and 3 × 3 matrices."""
    if matrix.shape[-1] == 2:
        (a, b), (c, e) = (row.unbind(-1) for row in matrix.unbind(-2))
        return torch.stack([torch.stack([e, -b], -1), torch.stack([-c, a], -1)], -2)
    columns = matrix.unbind(-1)
    return torch.stack([torch.linalg.cross(columns[i - 2], columns[i - 1]) for i in range(3)], -2)


def measure(
    jacobian: Float[Tensor, "#e #q d r"], kind: str = "cell", start: int = 0, cells: Int[Tensor, "e"] | None = None
) -> Float[Tensor, "#e #q"]:
    """det J, or √det JᵀJ on curves and surfaces in space; raises where a cell is folded or flat.

    Raises:
        MeshError: a cell is inverted or degenerate; it is named by `start` plus its index (or its entry of `cells`).
    """
    d, r = jacobian.shape[-2:]
    value = determinant(jacobian) if d == r else determinant(jacobian.mT @ jacobian).clamp(min=0).sqrt()
    with torch.no_grad():
        # A flat cell's determinant is round-off beside the product of its edge lengths, however thin the cell.
        lengths = sum_of(row.square() for row in jacobian.unbind(-2)).sqrt()  # `norm` is slow along short axes
        smallest = 10 * torch.finfo(jacobian.dtype).eps * lengths.prod(-1)
        wrong = ~(value > smallest)
        if bool(wrong.any()):
            row, q = torch.nonzero(wrong)[0].tolist()
            state = "inverted" if float(value[row, q]) < -float(smallest[row, q]) else "degenerate"
            number = start + (row if cells is None else int(cells[row]))
            raise MeshError(
                f"{kind} {number} is {state}: det J = {float(value[row, q]):.3g}. Nodes must be in VTK order "
                "(counterclockwise), and no cell may be folded or flat."
            )
    return value


def check_jacobians(mesh: Any) -> None:
    """Raise `MeshError` at the first cell whose Jacobian is not positive at the points where integrals look."""
    for i, block in enumerate(mesh.blocks):
        rule = quadrature(block.cell, 2 * block.degree)
        for cells in block.portions():
            with torch.no_grad():
                _, jacobian, _ = mesh.map(i, cells, rule.points)
            measure(jacobian, block.cell.name, mesh.block_starts[i], cells)


def is_curved(mesh: Any, block: Any) -> bool:
    """Whether some node is elsewhere than the cell's vertices alone would put it, by more than round-off."""
    if block.degree == 1 or mesh.version is None:
        return block.degree > 1
    nodes, eps = mesh.nodes.detach(), torch.finfo(mesh.dtype).eps
    table = lagrange_element(block.cell, 1).tabulate(block.element.nodes, 0).value[0].to(nodes)
    for cells in block.portions():
        corners = nodes[block.nodes_of(cells)]
        apart = (table @ corners[:, : block.cell.num_vertices] - corners).abs().amax((1, 2))
        size = (corners.amax(1) - corners.amin(1)).amax(1)
        if bool((apart > eps ** (2 / 3) * size + 8 * eps * corners.abs().amax((1, 2))).any()):
            return True
    return False
