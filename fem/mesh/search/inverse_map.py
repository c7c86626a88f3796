"""Where in a cell a point lies: the reference coordinates ξ with X(ξ) = x, for cells that need not be known as a mesh.

The control points of a cell's Bernstein form give a box that surely contains it, however curved.
"""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.mesh.jacobian import determinant, inverse
from fem.mesh.topology import Block
from fem.reference.lagrange import LagrangeElement, barycentric_map, lagrange_element
from fem.support.transforms import outside_transforms


def bounds(nodes: Float[Tensor, "n d"], blocks: Sequence[Block]) -> tuple[Float[Tensor, "e d"], Float[Tensor, "e d"]]:
    """The lowest and the highest corner of a box around every cell, block after block."""
    lower, upper = [], []
    for block in blocks:
        control = nodes[block.connectivity]
        if block.degree > 1:
            control = to_bernstein(block.element).to(nodes) @ control
        lower.append(control.amin(1))
        upper.append(control.amax(1))
    return torch.cat(lower), torch.cat(upper)


@cache
@outside_transforms()
def to_bernstein(element: LagrangeElement) -> Float[Tensor, "a a"]:
    """The matrix from nodal values to coefficients of the Bernstein basis c_α λ^α, positive and of sum one.

    The cell lies in the convex hull of the coefficients of its coordinates; for degree 1 these are its vertices.
    """
    matrix, offset = barycentric_map(element.cell)
    barycentric = element.nodes @ matrix.T + offset
    monomials = (barycentric[:, None] ** torch.round(element.degree * barycentric)).prod(-1)
    return torch.linalg.inv(monomials * torch.linalg.solve(monomials, torch.ones_like(monomials[0])))


def is_affine(element: LagrangeElement) -> bool:
    return element.degree == 1 and element.cell.is_simplex


def push(
    element: LagrangeElement, corners: Float[Tensor, "m a d"], reference: Float[Tensor, "#m r"]
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d r"]]:
    """Position X(ξ) and Jacobian of the m-th cell at the m-th reference point."""
    table = element.tabulate(reference)
    assert table.grad is not None
    return (table.value[0, :, None] @ corners)[:, 0], corners.mT @ table.grad[0]


def invert(jacobian: Float[Tensor, "m d r"]) -> Float[Tensor, "m r d"]:
    d, r = jacobian.shape[1:]
    return inverse(jacobian, determinant(jacobian if d == r else jacobian.mT @ jacobian))


def pull_back(
    element: LagrangeElement,
    corners: Float[Tensor, "m a d"],
    x: Float[Tensor, "m d"],
    slack: Float[Tensor, "m"],
    tolerance: float,
    roundoff: float,
) -> tuple[Float[Tensor, "m r"], Bool[Tensor, "m"]]:
    """ξ with X(ξ) = x, by Newton's (on curves and surfaces Gauss's) method, and whether it lies in the cell.

    Steps are halved until the distance shrinks, and cut where they would leave the cell by more than half its size:
    the map may fold out there. One step does for affine cells; others start from the closest of a few points inside.
    """
    matrix, offset = (t.to(x) for t in barycentric_map(element.cell))
    centre = torch.tensor(element.cell.vertices, dtype=x.dtype, device=x.device).mean(0)
    starts, steps, affine = centre[None], 1, is_affine(element)
    if not affine:
        nodes = lagrange_element(element.cell, max(2, element.degree)).nodes.to(x)
        starts, steps = centre + 0.8 * (nodes - centre), 60
    distance = (element.tabulate(starts, 0).value[0] @ corners - x[:, None]).square().sum(-1)
    reference = starts[distance.argmin(1)]
    result, inside = torch.full_like(reference, torch.nan), torch.zeros_like(slack, dtype=torch.bool)
    row = torch.arange(len(x), device=x.device)  # of the pairs still under way
    best, step = torch.full_like(slack, torch.inf), torch.zeros_like(reference)
    for _ in range(steps):
        position, jacobian = push(element, corners, starts if affine else reference + step)
        residual, pseudo = x - position, invert(jacobian)
        better = residual.norm(dim=1) < best
        reference = torch.where(better[:, None], reference + step, reference)
        newton = (pseudo @ residual[..., None])[..., 0].nan_to_num(0, 0, 0)  # where the map folds: nowhere to go
        if not affine:
            change = newton @ matrix.T
            room = (reference @ matrix.T + offset + 0.5).clamp(min=0) / -change
            newton = newton * torch.where(change < 0, room, 1).amin(1, keepdim=True).clamp(max=1)
        step = torch.where(better[:, None], newton, step / 2)
        best = torch.where(better, residual.norm(dim=1), best)
        near = tolerance + roundoff * pseudo.abs().sum(-1).amax(-1)
        # What is left of the distance once this last step is taken, to first order.
        left = torch.where(better, (residual - (jacobian @ step[..., None])[..., 0]).norm(dim=1), best)
        done = (step.abs().amax(1) <= near) | affine
        final = reference + step
        result[row[done]] = final[done]
        hit = (final @ matrix.T + offset >= -near[:, None]).all(1) & (left <= slack)
        inside[row[done]] = hit[done]
        if bool(done.all()):
            break
        state = (row, best, step, reference, corners, x, slack)
        row, best, step, reference, corners, x, slack = (t[~done] for t in state)
    return result, inside
