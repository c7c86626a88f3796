"""The steps of a fit in turn: control points, knots and weights for the parameters; parameters for the patch.

All items of a batch take their turns side by side; one that has come to rest stays as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import check_dtype, check_knots, uniform_knots
from fem.support.checks import did_you_mean
from fem.support.status import Status, nest
from nurbs.fitting.foot_points import foot_points
from nurbs.fitting.least_squares import Held, solve_cloud, solve_grid
from nurbs.fitting.options import FitOptions, Progress
from nurbs.fitting.projected_newton import Minimum, minimize_bounded
from nurbs.fitting.variable_projection import ReducedProblem
from nurbs.geometry.directions import UVW, continued, per_direction
from nurbs.geometry.patch import Patch

FREE = ("control_points", "knots", "weights")
PROJECTION_RTOL = 1e-3
STOPPED = {True: Status.STALLED, False: Status.MAX_ITERATIONS}  # without convergence; stalled or not


@dataclass(frozen=True, eq=False)
class FitState:
    """Data and patches of a batch with one axis, the points of a grid with their axes.

    `parameters` is a tuple of "b q", one per direction, or those of a cloud, "b q r"; `hold` as in `fit_surface`.
    """

    kind: type[Patch]
    name: str
    points: Float[Tensor, "..."]
    parameters: tuple[Float[Tensor, "b _"], ...] | Float[Tensor, "b q r"]
    knots: tuple[Float[Tensor, "b _"], ...]
    degree: tuple[int, ...]
    weights: Float[Tensor, "..."] | None
    smoothing: float
    periodic: tuple[bool, ...]
    hold: str | None

    def solve(self) -> tuple[Patch, Float[Tensor, "b"]]:
        """The nearest patch for these parameters, knots and weights, and its residual."""
        u, p = self.parameters, self.points
        separate = isinstance(u, tuple) and self.weights is None and not self.smoothing
        if isinstance(u, tuple) and separate and self.hold != "corners":
            P = solve_grid(p, u, self.knots, self.degree, self.name, self.periodic, self.hold is not None)
        else:
            flat = p.flatten(1, -2), as_cloud(u)
            P = solve_cloud(
                *flat, self.knots, self.degree, self.weights, self.smoothing, self.name, self.periodic, self.corners()
            )
        patch = self.kind(P, self.weights, self.knots, self.degree, periodic=self.periodic, check_finite=False)
        values = patch(*u) if isinstance(u, tuple) else patch.at(u)
        return patch, (values - p).square().flatten(1).mean(-1)

    def corners(self) -> Held | None:
        """The points at the corners of a grid as control points."""
        if self.hold is None:
            return None
        shape = [t.shape[-1] - p - 1 for t, p in zip(self.knots, self.degree, strict=True)]
        nets = [torch.arange(prod(n), device=self.points.device).reshape(n) for n in (shape, self.points.shape[1:-1])]
        index, places = (net[tuple(slice(None, None, max(n - 1, 1)) for n in net.shape)].flatten() for net in nets)
        return Held(index, self.points.flatten(1, -2)[:, places])

    def search(
        self, free: Sequence[str], options: FitOptions, progress: Progress, over: Callable[[], bool]
    ) -> tuple["FitState", Minimum]:
        """Better knots and weights: the best end of `starts` searches per item, side by side, until it is `over`."""
        starts = options.starts if "knots" in free else 1
        points = self.points.detach().flatten(1, -2)

        def repeated(x: Tensor) -> Tensor:
            return x.detach().repeat_interleave(starts, 0)

        u, w = self.parameters, self.weights
        problem = ReducedProblem(
            repeated(points),
            tuple(map(repeated, u)) if isinstance(u, tuple) else repeated(u),
            tuple(map(repeated, self.knots)),
            self.degree,
            None if w is None else repeated(w.flatten(1)),
            "knots" in free,
            "weights" in free,
            options.floor,
        )
        x, lower, upper = problem.start()
        spans = sum(moving.count for moving in problem.moving)
        drawn = (
            -torch.rand(len(x), spans, generator=torch.Generator().manual_seed(0), dtype=x.dtype, device="cpu")
            .neg()
            .log1p()
        )
        other = torch.arange(len(x), device=x.device)[:, None] % starts > 0
        x[:, :spans] = torch.where(other & (upper[:, :spans] > 0), drawn.to(x), x[:, :spans])
        half = points[0].numel() / 2
        found = minimize_bounded(
            problem,
            x,
            lower,
            upper,
            max_iterations=options.max_iterations,
            rtol=options.rtol or (1e-9 if x.dtype == torch.float64 else 1e-5),
            atol=(repeated(points - points.mean(1, keepdim=True)) * 10 * torch.finfo(x.dtype).eps).square().sum((1, 2)),
            damping=0.1,  # short first steps: knots that are to meet should not jump past each other
            tick=lambda i, f: progress(i, f.unflatten(0, (-1, starts)).amin(-1) / half),
            over=over,
        )
        best = found.value.unflatten(0, (-1, starts)).argmin(-1) + starts * torch.arange(len(points), device=x.device)
        found = Minimum(*(getattr(found, field.name)[best] for field in fields(Minimum)))
        found = replace(found, history=found.history / half)
        knots, _, weights = problem.unpack(found.x, best)
        weights = None if w is None or weights is None else weights.reshape(w.shape)
        return replace(self, knots=tuple(knots), weights=weights), found


def fit(
    kind: type[Patch],
    name: str,
    points: Tensor,
    shape: Sequence[int],
    degree: Sequence[int],
    free: Sequence[str],
    parameters: tuple[Tensor, ...] | Tensor,
    knots: Sequence[Tensor] | None,
    weights: Tensor | None,
    periodic: tuple[bool, ...],
    hold: str | None,
    options: FitOptions,
) -> tuple[Tensor, Any, Tensor, tuple[Tensor, ...] | Tensor, Tensor, Any]:
    """Residual, status, iterations, parameters, history and patch; see `fit_surface` for arguments and errors."""
    state, batch = _start(
        kind, name, points, shape, degree, free, parameters, knots, weights, options.smoothing, periodic, hold
    )
    free = [what for what in free if what != "control_points"]
    settings = replace(options, max_iterations=min(5, options.max_iterations)) if options.projections else options
    over = options.clock()
    patch, residual = state.solve()
    history, steps = [residual.detach()[:, None]], torch.zeros_like(residual, dtype=torch.int64)
    settled, stalled = torch.ones_like(steps, dtype=torch.bool), torch.zeros_like(steps, dtype=torch.bool)
    scale = (state.points.detach().abs().flatten(1).amax(-1) * torch.finfo(residual.dtype).eps).square()
    late = False
    with options.reporting((settings.max_iterations * bool(free) + 1) * (options.projections + 1) - 1) as report:
        for projection in range(options.projections + 1):
            before = residual.detach()
            if projection:
                u = foot_points(patch, state.points, initial=None if projection == 1 else as_cloud(state.parameters))
                state = replace(state, parameters=(u[..., 0],) if u.shape[-1] == 1 else u)
                patch, residual = state.solve()
                history.append(residual.detach()[:, None])
                report(int(steps.max()) + 1, residual.detach())
            if free:
                state, found = state.search(free, settings, partial(_onwards, report, int(steps.max())), over)
                patch, residual = state.solve()
                history.append(found.history[:, 1:])
                steps, settled, stalled = steps + found.iterations, found.converged, found.stalled
            if projection:
                steps, stalled = steps + 1, torch.zeros_like(settled)
                settled = residual.detach() >= torch.minimum(before * (1 - PROJECTION_RTOL), before - scale)
                if settled.all():
                    break
            elif options.projections:
                settled = torch.zeros_like(settled)
            if late := over():
                break
    sound = residual.isfinite() & patch.control_points.flatten(1).isfinite().all(-1)
    ends = zip(sound.tolist(), settled.tolist(), stalled.tolist(), strict=True)
    statuses = [
        Status.NOT_FINITE if not fine else Status.CONVERGED if done else Status.BUDGET if late else STOPPED[stuck]
        for fine, done, stuck in ends
    ]

    def unflat(x: Any) -> Any:
        return tuple(map(unflat, x)) if isinstance(x, tuple) else x.reshape((*batch, *x.shape[1:]))

    patch = patch.replace(
        control_points=unflat(patch.control_points),
        weights=None if patch.weights is None else unflat(patch.weights),
        knots=unflat(patch.knots),
        check_finite=bool(sound.all()),
    )
    found = unflat(torch.cat(history, -1))
    return unflat(residual), nest(statuses, batch), unflat(steps), unflat(state.parameters), found, patch


def _onwards(report: Progress, before: int, iteration: int, residual: Tensor) -> None:
    report(before + iteration, residual)


def as_cloud(parameters: tuple[Float[Tensor, "b _"], ...] | Float[Tensor, "b q r"]) -> Float[Tensor, "b q r"]:
    """The points of a tensor grid, the last direction fastest; scattered ones as they are."""
    if isinstance(parameters, Tensor):
        return parameters
    r, lines = len(parameters), []
    sizes = [u.shape[-1] for u in parameters]
    for axis, u in enumerate(parameters):
        lines.append(u.reshape(len(u), *[1] * axis, -1, *[1] * (r - 1 - axis)).expand(-1, *sizes).flatten(1))
    return torch.stack(lines, -1)


def _start(
    kind: type[Patch],
    name: str,
    points: Tensor,
    shape: Sequence[int],
    degree: Sequence[int],
    free: Sequence[str],
    parameters: tuple[Tensor, ...] | Tensor,
    knots: Sequence[Tensor] | None,
    weights: Tensor | None,
    smoothing: float,
    periodic: tuple[bool, ...],
    hold: str | None,
) -> tuple[FitState, tuple[int, ...]]:
    """Everything checked, with one batch axis, and the batch axes it had."""
    r, call = kind.directions, f"{name}(points)"
    names = set(free) if isinstance(free, Iterable) and not isinstance(free, str) else set()
    if "control_points" not in names or not names <= set(FREE):
        unknown = next((did_you_mean(what, FREE) for what in names if what not in FREE), "")
        raise ValueError(
            f'`{name}(free=...)` takes "control_points" and any of "knots", "weights"; got {free!r}.{unknown}'
        )
    if smoothing and len(free) > 1:
        raise ValueError(
            f"`{name}(smoothing=...)` goes with fixed knots and weights; got free={free!r}. Leave one of them out."
        )
    if len(free) > 1 and (any(periodic) or hold):
        raise ValueError(
            f"`{name}(periodic=..., hold=...)` go with fixed knots and weights; got free={free!r}. Leave one out."
        )
    for axis, (n, p) in enumerate(zip(shape, degree, strict=True)):
        if n < p + 1 or p < 0:
            raise ValueError(
                f"`{name}` needs degree >= 0 and degree + 1 control points or more in {UVW[axis]}; got {n} of "
                f"degree {p}."
            )
        if "knots" in free and p == 0:
            raise ValueError(f"`{name}` finds knots of degree 1 or more; got 0 in {UVW[axis]}: jumps have no gradient.")
    axes = len(parameters) if isinstance(parameters, tuple) else 1
    batch, sizes = points.shape[: -axes - 1], points.shape[-axes - 1 : -1]

    def flat(what: str, tensor: Tensor, wanted: Sequence[int]) -> Tensor:
        check_dtype(what, tensor, points)
        try:
            return tensor.expand(*batch, *wanted).reshape(-1, *wanted)
        except RuntimeError as error:
            raise ValueError(
                f"`{name}` of points {tuple(points.shape)} needs `{what}` of shape {(*batch, *wanted)}, or without "
                f"batch axes; got {tuple(tensor.shape)}."
            ) from error

    like = {"dtype": points.dtype, "device": points.device}
    given = [None] * r if knots is None else per_direction("knots", knots, r, call, Tensor)
    t = ()
    for x, n, p, ring in zip(given, shape, degree, periodic, strict=True):
        x = x if x is not None else torch.linspace(0, 1, n + 1, **like) if ring else uniform_knots(n, p, **like)
        x = flat("knots", x, (n + 1 if ring else n + p + 1,))
        check_knots(continued(x, p) if ring else x, p)
        t = (*t, x)
        clamped = (x[:, : p + 1] == x[:, :1]).all() and (x[:, -p - 1 :] == x[:, -1:]).all()
        if hold and not clamped:
            raise ValueError(f"`{name}(hold=...)` needs clamped knots, the first and last {p + 1} of them equal.")
    if weights is None and "weights" in free:
        weights = torch.ones(shape, **like)
    w = None if weights is None else flat("weights", weights, shape)
    if w is not None and not ((w > 0) & w.isfinite()).all():
        raise ValueError(f"`{name}(weights=...)` must be positive and finite; got {w.min().item()} as the least one.")
    if isinstance(parameters, tuple):
        u = tuple(flat("parameters", x, (size,)) for x, size in zip(parameters, sizes, strict=True))
        columns = list(u)
    else:
        u = flat("uv", parameters, (*sizes, r))
        columns = list(u.unbind(-1))
    for axis, (x, knot, p, ring) in enumerate(zip(columns, t, degree, periodic, strict=True)):
        start, end = (knot[:, :1], knot[:, -1:]) if ring else (knot[:, p, None], knot[:, -p - 1, None])
        if (bad := ~((x >= start) & (x <= end))).any():
            item, q = bad.nonzero()[0].tolist()
            raise ValueError(
                f"`{name}` needs parameters in the range of the knots, [{start[item].item():g}, {end[item].item():g}]; "
                f"got {x[item, q].item()} in {UVW[axis]}. Rescale them, or give `knots` that cover them."
            )
    points = points.reshape(-1, *points.shape[len(batch) :])
    return FitState(kind, name, points, u, t, tuple(degree), w, smoothing, periodic, hold), batch
