"""Losses of spline surfaces against point clouds, for networks and for fits of single clouds.

The loss needs no control points and no parameters of the points, only the cloud X and the surface S on a grid G:

    mean_{x ∈ X} min_{u ∈ G} |x − S(u)|² + mean_{u ∈ G} min_{x ∈ X} |x − S(u)|² + stiffness · bending(P)

(Cho et al., Differentiable Spline Approximations, NeurIPS 2021, section 4.3). All surfaces are bicubic on clamped
uniform knots. For comparison there is the supervised loss of ParSeNet (Sharma et al., 2020, eq. 5), the distance to
known control points, minimised over the symmetries of the grid.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import basis_matrix, uniform_knots
from fem.support.modes import outside_modes
from nurbs.geometry.directions import per_direction
from nurbs.geometry.patch import check_patch
from nurbs.geometry.surface import Surface
from nurbs.reconstruction.distances import chamfer, laplacian

STIFFNESS = 1e-6
GRID = (32, 32)
WHERE_FIT = 41  # parameters per direction at which control points are fitted to a surface


def surface_points(surface: Surface, grid: tuple[int, int] = GRID) -> Float[Tensor, "*b m d"]:
    """Points of surfaces on a uniform grid of all their parameters, as clouds."""
    return surface(*_parameters(surface, grid)).flatten(-3, -2)


def _parameters(surface: Surface, grid: tuple[int, int]) -> list[Tensor]:
    check_patch("surface_points(surface)", surface, Surface)
    grid = per_direction("grid", grid, 2, "surface_points", int)
    like = {"dtype": surface.dtype, "device": surface.device}
    ends = [(start[..., None], end[..., None]) for start, end in surface.domain()]
    return [torch.lerp(*pair, torch.linspace(0, 1, n, **like)) for pair, n in zip(ends, grid, strict=True)]


def bending(control_points: Float[Tensor, "*b i j d"]) -> Float[Tensor, "*b"]:
    """Mean of |Δ²P / h²|² over both directions for h² = 1 / ((i − 1)(j − 1)): ½ ∫ |S_uu|² + |S_vv|², roughly.

    The Laplacian of the control grid in units that make it mean the same on all grids.
    """
    i, j = control_points.shape[-3:-1]
    return laplacian(control_points) * ((i - 1) * (j - 1)) ** 2


@outside_modes
def reconstruction_loss(
    points: Float[Tensor, "b m 3"],
    control_points: Float[Tensor, "b i j 3"],
    grid: tuple[int, int] = GRID,
    stiffness: float = STIFFNESS,
) -> Float[Tensor, "b"]:
    """Two-sided squared Chamfer distance of cloud and surface on a grid, plus stiffness · bending.

    For clouds of about unit size; the loss of others is comparable after division by their size squared.
    """
    return chamfer(points, surface_points(Surface(control_points), grid)) + stiffness * bending(control_points)


def control_point_loss(
    control_points: Float[Tensor, "*b i j d"], target: Float[Tensor, "*b _ _ d"]
) -> Float[Tensor, "*b"]:
    """min_σ mean_ij |P_ij − T_σ(ij)|² over the symmetries σ of the grid: 8 of a square, 4 of a rectangle.

    Raises:
        ValueError: shapes that differ.
    """
    if control_points.shape != target.shape:
        raise ValueError(
            f"`control_point_loss` needs grids of one shape; got {tuple(control_points.shape)} and "
            f"{tuple(target.shape)}. Fit the target with `control_points_of(surface, shape)`."
        )
    turned = [target, target.flip(-3), target.flip(-2), target.flip((-3, -2))]
    if target.shape[-3] == target.shape[-2]:
        turned += [t.transpose(-3, -2) for t in turned]
    distances = [(control_points - t).square().sum(-1).mean((-2, -1)) for t in turned]
    return torch.stack(distances).amin(0)


def control_points_of(surface: Surface, shape: tuple[int, int]) -> Float[Tensor, "*b i j d"]:
    """Control points of the bicubic surface of that shape nearest to a surface, in least squares on its parameters."""
    shape = per_direction("shape", shape, 2, "control_points_of", int)
    t = torch.linspace(0, 1, WHERE_FIT, dtype=torch.float64, device=surface.device)
    inverse = [torch.linalg.pinv(basis_matrix(uniform_knots(n, 3, device=t.device), 3, t)[0]) for n in shape]
    left, right = (m.to(surface.dtype) for m in inverse)
    values = surface(*_parameters(surface, (WHERE_FIT, WHERE_FIT)))
    return torch.einsum("iu,...uvd,jv->...ijd", left, values, right)


@outside_modes
@torch.no_grad()
def surface_distance(
    surface: Surface, other: Surface, samples: int = 50, density: int = 4, one_sided: bool = False
) -> Float[Tensor, "*b"]:
    """Two-sided mean squared distance between surfaces, uniform in their parameters.

    Each side is the mean over samples² points of one surface of the squared distance to the nearest of
    (density · samples)² points of the other. On a surface of area A with equal cells the distance of two equal surfaces
    would come out as about A / (3 (density · samples)²) instead of 0: the floor of what can be measured.

    Args:
        one_sided: from `surface` to `other` alone.
    """
    few, many = (samples, samples), (density * samples, density * samples)
    distance = chamfer(surface_points(surface, few), surface_points(other, many), one_sided=True)
    return distance if one_sided else distance + surface_distance(other, surface, samples, density, one_sided=True)
