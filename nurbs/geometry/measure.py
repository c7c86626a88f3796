"""Integrals over patches: Gauss points on their knot spans, and length, area or volume."""

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.quadrature import quadrature
from fem.support.checks import check_integers
from fem.support.modes import outside_modes
from nurbs.geometry.patch import Patch


def gauss_rule(patch: Patch, num_points: int | None) -> tuple[Float[Tensor, "g"], Float[Tensor, "g"]]:
    """Gauss–Legendre points and weights on [0, 1] in the patch's dtype; 2 degree + 4 of them by default."""
    check_integers("measure", optional=True, num_points=num_points)
    rule = quadrature("interval", 2 * (num_points or 2 * max(patch.degree) + 4) - 1)
    return rule.points[:, 0].to(patch.device, patch.dtype), rule.weights.to(patch.device, patch.dtype)


@outside_modes
def measure(patch: Patch, num_points: int | None = None) -> Float[Tensor, "*b"]:
    """Length, area or volume: ∫ √det(JᵀJ) du by Gauss quadrature on each span, differentiably (in the knots too).

    Spans of no length have weight zero, so that items of a batch may repeat different knots.

    Args:
        num_points: Gauss points per span and direction; 2 degree + 4 by default.
    """
    x, w = gauss_rule(patch, num_points)
    corners = [t[..., p : t.shape[-1] - p] for t, p in zip(patch.unwrapped_knots, patch.degree, strict=True)]
    J = patch.jacobian(*(torch.lerp(c[..., :-1, None], c[..., 1:, None], x).flatten(-2) for c in corners))
    if patch.directions == patch.dim:
        density = torch.linalg.det(J).abs()
    elif patch.directions == 1:
        density = torch.linalg.vector_norm(J[..., 0], dim=-1)
    else:
        density = torch.linalg.det(J.mT @ J).clamp_min(torch.finfo(J.dtype).tiny).sqrt()
    for axis, c in reversed(list(enumerate(corners))):
        weights = (c.diff()[..., None] * w).flatten(-2)
        density = (density * weights.reshape(*weights.shape[:-1], *[1] * axis, -1)).sum(-1)
    return density
