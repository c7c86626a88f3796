"""Curves and surfaces nearest to points: their control points, and where asked knots and weights.

    min  1/M Σ_m |S(u_m) - p_m|² + λ ∫ |second derivatives|² du

Control points for given parameters u_m are a linear problem (`nurbs/fitting/least_squares.py`). Free knots and weights
are found by variable projection (`nurbs/fitting/variable_projection.py`), the control points eliminated exactly.
Parameters that are not known are improved by turns: fit, then put each u_m at the foot point of p_m
(`nurbs/fitting/alternation.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from fem.support.checks import check_choice, check_flags
from fem.support.modes import outside_modes
from fem.support.status import Status, check_fit, worst
from nurbs.fitting.alternation import fit
from nurbs.fitting.cloud_parameters import FLAT, cloud_parameters, warn_of_outliers
from nurbs.fitting.options import FitOptions
from nurbs.fitting.parametrization import Parametrization, averaged_knots, parametrize, parametrize_grid
from nurbs.geometry.curve import Curve
from nurbs.geometry.directions import per_direction
from nurbs.geometry.numbers import Coordinates, floating
from nurbs.geometry.surface import Surface

FitStatus = Status  # its name before solvers and fits shared one


@dataclass(frozen=True, eq=False, repr=False)
class PatchFit:
    """What a fit returns beside the patch, per batch item.

    Attributes:
        residual: mean squared distance per coordinate, 1/(M d) Σ_m |S(u_m) - p_m|², without smoothing.
        status: a `Status`; for a batch, nested tuples of them.
        iterations: steps of the search for knots and weights, and projections.
        parameters: of the points: "*b q" per direction of a grid, "*b q 2" of a cloud.
        history: the residual before and after each iteration, "*b i".
    """

    residual: Float[Tensor, "*b"]
    status: Any
    iterations: Int[Tensor, "*b"]
    parameters: tuple[Float[Tensor, "..."], ...] | Float[Tensor, "..."]
    history: Float[Tensor, "*b i"]

    @property
    def converged(self) -> bool:
        """Whether every item of the batch converged."""
        return worst(self.status) is Status.CONVERGED

    def __repr__(self) -> str:
        patch = self.curve if isinstance(self, CurveFit) else self.surface if isinstance(self, SurfaceFit) else None
        return (
            f"{type(self).__name__}({worst(self.status).name}, {patch}; iterations ≤ {int(self.iterations.max())}, "
            f"residual ≤ {float(self.residual.detach().max()):.2e})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class CurveFit(PatchFit):
    """The result of `fit_curve`."""

    curve: Curve


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceFit(PatchFit):
    """The result of `fit_surface`."""

    surface: Surface


@outside_modes
def fit_curve(
    points: Coordinates,
    num_points: int,
    degree: int = 3,
    free: Sequence[str] = ("control_points",),
    parameters: Float[Tensor, "*#b q"] | None = None,
    *,
    parametrization: Parametrization | str = "chord",
    knots: Float[Tensor, "*#b m"] | None = None,
    weights: Float[Tensor, "*#b n"] | None = None,
    periodic: bool = False,
    hold: str | None = None,
    throw: bool = True,
    **options: Any,
) -> CurveFit:
    """The curve of `num_points` control points nearest to a row of points.

    Args:
        points: "*b q d", in order along the curve; in any order where `parameters` are given.
        parameters: in the range of the knots; None for those of `parametrization`.
        parametrization: "chord" (length), "centripetal" or "uniform".
        knots: fixed, or where the search starts. By default equal spans on [0, 1]; for chord length and centripetal
            parameters those of eq. 9.69 of The NURBS Book, with some points in every span.
        periodic: a closed curve, smooth where it starts; the points go on from the last to the first, which may be one.
        hold: "ends": the curve starts and ends at the first and last point.

    Further arguments, options and errors as for `fit_surface`.
    """
    points = _checked_points("fit_curve", points, 1)
    check_flags("fit_curve", throw=throw, periodic=periodic)
    check_choice("fit_curve", "hold", hold, [None, "ends"])
    num_points, degree = (
        per_direction(name, value, 1, "fit_curve", int)[0]
        for name, value in (("num_points", num_points), ("degree", degree))
    )
    if hold and periodic:
        raise ValueError('`fit_curve(hold="ends")` needs ends; a periodic curve has none. Leave one of them out.')
    u = parametrize(points, parametrization, periodic) if parameters is None else parameters
    if knots is None and parameters is None and parametrization != "uniform":
        knots = averaged_knots(u, num_points, degree, periodic)
    given = None if knots is None else (knots,)
    found = fit(
        Curve,
        "fit_curve",
        points,
        (num_points,),
        (degree,),
        free,
        (u,),
        given,
        weights,
        (periodic,),
        hold,
        FitOptions.of("fit_curve", options_of(fit_curve), **options),
    )
    return check_fit("fit_curve(points)", CurveFit(*found), throw)


@outside_modes
def fit_surface(
    points: Coordinates,
    shape: Sequence[int],
    degree: int | Sequence[int] = 3,
    free: Sequence[str] = ("control_points",),
    uv: Float[Tensor, "..."] | Sequence[Float[Tensor, "..."]] | None = None,
    *,
    parametrization: Parametrization | str | None = None,
    knots: Sequence[Float[Tensor, "..."]] | None = None,
    weights: Float[Tensor, "..."] | None = None,
    periodic: bool | Sequence[bool] = False,
    hold: str | None = None,
    throw: bool = True,
    **options: Any,
) -> SurfaceFit:
    """The surface of `shape` control points nearest to a grid of points or to a cloud.

    Every item of a batch is a fit of its own, with its own knots; they run side by side. The control points, and with
    them the residual, are differentiable in points, parameters, weights and knots. Free knots and weights and projected
    parameters are constants there; at the optimum the gradient of the residual is exact all the same, for their share
    of it is zero.

    Args:
        points: a grid "*b u v d", or a cloud "*b q d", which is what `uv` or `parametrization="principal"` say or
            points with two axes.
        shape: control points in u and v.
        degree: one or two.
        free: "control_points" (always), "knots", "weights".
        uv: parameters in the range of the knots: of a cloud "*#b q 2", of a grid a pair "*#b u", "*#b v".
        parametrization: where there is no `uv`: of a grid "uniform" (default), "chord" or "centripetal"; of a cloud
            "principal", along its principal axes: a beginning for clouds that are graphs over some plane. Around
            periodic directions these are angles, about the axis of a tube and the core of a ring.
        knots: pair, fixed, or where the search starts. By default equal spans on [0, 1]; for chord length and
            centripetal parameters those of eq. 9.69 of The NURBS Book, with some points in every span. In a periodic
            direction one period.
        weights: "*#b i j", fixed, or where the search starts; by default 1 where free, otherwise none.
        periodic: per direction; the surface is closed and smooth there. A grid goes on from its last row to its first,
            which may be one.
        hold: of a grid: "corners" are interpolated; "boundary": so that each side is moreover the curve that is nearest
            to the points of that side alone, whatever is inside (without weights and smoothing).
        throw: raise where the fit of an item fails: False returns it with that status.
        options: see `FitOptions`: smoothing, projections, starts, floor, max_iterations, rtol, seconds, progress. A
            cloud without `uv` has 100 projections at most, and unless it has free knots or weights a smoothing of 1e-7,
            which is to be felt only where the surface has no points.

    Warns:
        UserWarning: a cloud without `uv` that is no graph over a plane; control points that lie far from their cloud.

    Raises:
        ConvergenceError: the residual of an item is not finite (points so large that their squares overflow), unless
            `throw=False`; the fit is its `.solution`. To be out of iterations or to find no better step is an ordinary
            end: the fit is the best that was found, and its status says so.
        TypeError: dtypes that differ, an unknown option.
        ValueError: no points, points not finite, parameters out of range, shapes and batches that do not match, an
            unknown name in `free`, data that do not determine the control points (too few, or gaps).
    """
    (points,) = floating("fit_surface", points=points)
    cloud = isinstance(uv, Tensor) or parametrization == "principal" or (uv is None and points.ndim == 2)
    points = _checked_points("fit_surface", points, 1 if cloud else 2)
    check_flags("fit_surface", throw=throw)
    check_choice("fit_surface", "hold", hold, [None, "corners", "boundary"])
    periodic = per_direction("periodic", periodic, 2, "fit_surface", bool)
    settings = FitOptions.of("fit_surface", options_of(fit_surface), **options)
    if hold and (cloud or any(periodic) or (hold == "boundary" and (weights is not None or settings.smoothing))):
        needs = "a grid of points" if cloud else "ends: no direction periodic"
        needs = needs if cloud or any(periodic) else "no weights and no smoothing"
        raise ValueError(f'`fit_surface(hold="{hold}")` needs {needs}. Leave one of them out.')
    shape, degree = (
        per_direction(name, value, 2, "fit_surface", int) for name, value in (("shape", shape), ("degree", degree))
    )
    found_here = False
    if isinstance(uv, Tensor):
        if uv.ndim < 2 or uv.shape[-1] != 2:
            raise ValueError(
                f"`fit_surface(points, uv=...)` needs uv of shape (*batch, q, 2) for a cloud, or a pair for a grid; "
                f"got {tuple(uv.shape)}."
            )
    elif uv is not None:
        uv = per_direction("uv", uv, 2, "fit_surface", Tensor)
    elif cloud:
        uv, found_here = cloud_parameters(points.detach(), periodic), True
        usual = {"projections": 100, "smoothing": FLAT if len(free) == 1 else 0.0}
        settings = replace(settings, **{name: v for name, v in usual.items() if name not in options})
    else:
        method = parametrization or "uniform"
        uv = parametrize_grid(points, method, periodic)
        if knots is None and method != "uniform":
            rows = zip(uv, shape, degree, periodic, strict=True)
            knots = [averaged_knots(u, n, p, ring) for u, n, p, ring in rows]
    found = fit(Surface, "fit_surface", points, shape, degree, free, uv, knots, weights, periodic, hold, settings)
    if found_here:
        warn_of_outliers(points.detach(), found[-1].control_points.detach())
    return check_fit("fit_surface(points)", SurfaceFit(*found), throw)


def options_of(function: Callable[..., Any]) -> list[str]:
    """The names of its arguments after the points, but for the options that they stand beside."""
    named = [name for name, p in signature(function).parameters.items() if p.kind is not p.VAR_KEYWORD]
    return named[1:]


def _checked_points(name: str, points: Coordinates, axes: int) -> Tensor:
    """Finite points in floating point."""
    (points,) = floating(name, points=points)
    if points.ndim < axes + 1:
        wanted = "(*batch, q, d)" if axes == 1 else "(*batch, u, v, d), or a cloud (q, d)"
        raise ValueError(f"`{name}(points)` needs points of shape {wanted}; got shape {tuple(points.shape)}.")
    if points.numel() == 0:
        raise ValueError(f"`{name}(points)` needs points; got none (shape {tuple(points.shape)}).")
    if not (finite := points.detach().isfinite()).all():
        index = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"`{name}(points)` needs finite points; got {points[tuple(index)].item()} at index {index}. Remove them."
        )
    return points
