"""Faces: the part of a surface inside closed loops of curves, as one patch, where there is one.

There is one where the curves run along parameter lines and enclose a rectangle of parameters: the surface is cut there,
by knot insertion, around the seam of a closed surface if need be. Sides of the rectangle that are a point in space (the
poles of a sphere) need no curve. Flat regions have other patches as well: see `flat_patch`.

Loops run such that the inside lies to the left of them, seen from the side to which S_u × S_v points. That decides only
where nothing else does: which of two caps of a sphere, or of two bands of a torus, is meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fem.support.portions import at_a_time
from nurbs.files.exchange import Unreadable, tensor
from nurbs.fitting.foot_points import foot_points
from nurbs.geometry.curve import Curve
from nurbs.geometry.surface import Surface
from nurbs.modelling.refinement import breakpoints, clamp, restrict

MOST_SPANS = 24  # of a curve that are looked at
STEPS, STARTS = 8, 16  # quadratically convergent ones, and how many starts for points that are not found
Loop = Sequence[Curve]


def trim(surface: Surface, loops: Sequence[Loop], tolerance: float) -> Surface | None:
    """The part of the surface inside the loops; None where it is no rectangle of parameters.

    Args:
        loops: curves in space, or in the plane of the parameters (u, v), each beginning where the last one ends.
        tolerance: a distance below which points are the same, in space.
    """
    face = _Parameters(surface, tolerance)
    outlines = []
    for loop in loops:
        outline = face.outline([part for curve in loop for part in smooth_parts(curve)])
        if outline is None:
            return None
        outlines.append(outline)
    box = face.box(outlines)
    return None if box is None else face.cut(box)


def smooth_parts(curve: Curve) -> list[Curve]:
    """The curve split at its corners."""
    found = breakpoints(curve, 0)
    p = curve.degree[0]
    inner = found.values[1:-1][found.times[1:-1] >= p]
    if not len(inner):
        return [curve]
    h = 1e-9 * (found.values[-1] - found.values[0])
    before, after = (torch.nn.functional.normalize(curve.derivative(inner + k * h, order=1), dim=-1) for k in (-1, 1))
    corners = [float(t) for t in inner[(before - after).norm(dim=-1) > 1e-6]]
    ends = [None, *corners, None]
    return [restrict(curve, pair) for pair in pairwise(ends)] if corners else [curve]


def samples(curve: Curve) -> np.ndarray:
    """Points of a curve, "m d": its ends and some in every span, or in evenly chosen ones of very many."""
    t = breakpoints(curve, 0).values
    if len(t) > MOST_SPANS + 1:
        t = t[torch.linspace(0, len(t) - 1, MOST_SPANS + 1, dtype=torch.float64, device="cpu").round().long()]
    count = curve.degree[0] + (2 if curve.weights is None else 4)
    share = torch.arange(count, dtype=torch.float64, device="cpu") / count
    inner = torch.lerp(t[:-1, None], t[1:, None], share).flatten()
    return curve(torch.cat([inner, t[-1:]])).numpy()


@dataclass(frozen=True)
class _Outline:
    """A loop in the parameters: for each of its pieces the ends "2 2" and, per axis, whether it is constant there."""

    pieces: list[tuple[np.ndarray, tuple[bool, bool]]] = field(default_factory=list)
    turns: tuple[int, int] = (0, 0)  # how often it goes around a closed surface

    def corners(self) -> np.ndarray:
        return np.concatenate([ends for ends, _ in self.pieces])


@dataclass(frozen=True, eq=False)
class _Parameters:
    """The parameters of a surface: what closes, what is a point, and where points in space lie."""

    surface: Surface
    tolerance: float

    @cached_property
    def range(self) -> np.ndarray:
        return np.array([[float(bound) for bound in bounds] for bounds in self.surface.domain()])

    @cached_property
    def sides(self) -> list[list[np.ndarray]]:
        """Points of the side at the start and at the end of each axis."""
        found = []
        for axis in range(2):
            t = breakpoints(self.surface, 1 - axis).values
            along = torch.cat([torch.lerp(t[:-1, None], t[1:, None], tensor(np.arange(4) / 4)).flatten(), t[-1:]])
            ends = tensor(self.range[axis])
            grid = self.surface(ends, along) if axis == 0 else self.surface(along, ends).movedim(1, 0)
            found.append([grid[0].numpy(), grid[1].numpy()])
        return found

    @cached_property
    def closed(self) -> list[bool]:
        return [bool(np.linalg.norm(a - b, axis=-1).max() <= self.tolerance) for a, b in self.sides]

    @cached_property
    def poles(self) -> list[list[np.ndarray | None]]:
        """The point that a side is, or None."""
        points = [[s.mean(0) for s in pair] for pair in self.sides]
        return [
            [p if np.linalg.norm(s - p, axis=-1).max() <= self.tolerance else None for s, p in zip(*both, strict=True)]
            for both in zip(self.sides, points, strict=True)
        ]

    @property
    def period(self) -> np.ndarray:
        return self.range[:, 1] - self.range[:, 0]

    def near(self, uv: np.ndarray, points: np.ndarray) -> bool:
        """Whether the surface is at these points for these parameters, once brought into their range."""
        inside = uv.copy()
        for axis in range(2):
            low, high = self.range[axis]
            if self.closed[axis]:
                inside[:, axis] -= np.floor((inside[:, axis] - low) / (high - low)) * (high - low)
            inside[:, axis] = inside[:, axis].clip(low, high)
        return bool(np.linalg.norm(self.surface.at(tensor(inside)).numpy() - points, axis=-1).max() <= self.tolerance)

    @cached_property
    def _grid(self) -> tuple[Tensor, Tensor]:
        """Parameters "n 2" and points "n 3", some in every span."""
        lines = []
        for axis, p in enumerate(self.surface.degree):
            t, share = breakpoints(self.surface, axis).values, (tensor(np.arange(p + 2.0)) + 0.5) / (p + 2)
            lines.append(torch.lerp(t[:-1, None], t[1:, None], share).flatten())
        return torch.cartesian_prod(*lines), self.surface(*lines).flatten(0, 1)

    def located(self, points: np.ndarray) -> np.ndarray:
        """The parameters "m 2" of points on the surface, of points beside it those of the nearest.

        Gauss–Newton steps from the nearest samples, which are enough where the distance is zero; else `foot_points`.
        """
        p, (uv, _) = tensor(points), self._grid
        u = self._descended(uv[self._nearest(p, 1)[:, 0]], p)
        if (far := self._off(u, p) > 0.1 * self.tolerance).any():
            index = self._nearest(p[far], STARTS)
            again = p[far].repeat_interleave(index.shape[1], 0)
            found = self._descended(uv[index.flatten()], again)
            best = self._off(found, again).reshape(index.shape).argmin(-1)
            u[far] = found.reshape(*index.shape, 2)[torch.arange(len(index), device="cpu"), best]
        if (far := self._off(u, p) > 0.1 * self.tolerance).any():
            u[far] = foot_points(self.surface, p[far])
        return u.numpy()

    def _off(self, u: Tensor, p: Tensor) -> Tensor:
        return (self.surface.at(u) - p).norm(dim=-1)

    def _nearest(self, p: Tensor, count: int) -> Tensor:
        """The nearest samples, as numbers "m count"."""
        sample = self._grid[1]
        parts = p.split(at_a_time(len(sample), p))
        return torch.cat([torch.cdist(x, sample).topk(min(count, len(sample)), largest=False).indices for x in parts])

    def _descended(self, u: Tensor, p: Tensor) -> Tensor:
        low, high = tensor(self.range.T)
        for _ in range(STEPS):
            x, *tangents = self.surface.derivatives_at(u, orders=[(0, 0), (1, 0), (0, 1)])
            J, gap = torch.stack(tangents, -1), p - x
            if gap.norm(dim=-1).max() < 1e-4 * self.tolerance:
                break
            square = J.mT @ J
            damping = 1e-12 * square.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-300)
            step = torch.linalg.solve(square + torch.diag_embed(damping[:, None].expand(-1, 2)), J.mT @ gap[..., None])
            u = (u + step[..., 0]).clamp(low, high)
        return u

    def outline(self, curves: Loop) -> _Outline | None:
        """The loop, unwrapped around seams, with the ways along sides that are points; None where it is no outline."""
        drawn = [samples(curve) for curve in curves]
        if not drawn:
            return None
        if drawn[0].shape[-1] == 2:
            located = [uv.clip(*self.range.T) for uv in drawn]
            if max((abs(a - b) / self.period).max() for a, b in zip(located, drawn, strict=True)) > 1e-6:
                return None
            drawn = [self.surface.at(tensor(uv)).numpy() for uv in located]
        else:
            located = np.split(self.located(np.concatenate(drawn)), np.cumsum([len(x) for x in drawn])[:-1])
        size = np.linalg.norm(np.ptp(np.concatenate(drawn), axis=0))
        pieces: list[tuple[np.ndarray, tuple[bool, bool]]] = []
        start: np.ndarray | None = None
        last: np.ndarray | None = None
        start_pole = last_pole = None
        end_points = [x[[0, -1]] for x in drawn]
        for (_, end), (begin, _) in zip([end_points[-1], *end_points[:-1]], end_points, strict=True):
            if np.linalg.norm(end - begin) > max(self.tolerance, 1e-6 * size):
                return None
        for points, raw in zip(drawn, located, strict=True):
            if not self.near(raw, points):
                return None
            if np.linalg.norm(np.ptp(points, axis=0)) <= self.tolerance:
                continue
            uv, poles = self._unwrapped(raw, points)
            if uv is None:
                return None
            if last is None:
                start, start_pole = uv[0], poles[0]
            else:
                uv = uv + self._shift(last, uv[0], last_pole)
                if last_pole is not None:
                    pieces.append(self._along_pole(last, uv[0], last_pole))
            constant = self._constant(uv, points)
            if not any(constant):
                return None
            pieces.append((uv[[0, -1]], constant))
            last, last_pole = uv[-1], poles[1]
        if start is None or last is None:
            return None
        if start_pole is not None:
            end = start + self._shift(last, start, last_pole)
            pieces.append(self._along_pole(last, end, start_pole))
            last = end
        turns = (last - start) / self.period
        if (abs(turns - np.round(turns)) > 1e-3).any() or (turns[~np.array(self.closed)].round() != 0).any():
            return None
        return _Outline(pieces, (round(turns[0]), round(turns[1])))

    def _unwrapped(
        self, uv: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray | None, tuple[tuple[int, int] | None, tuple[int, int] | None]]:
        """Parameters without jumps at seams, and the sides that are points where they begin and end (axis, end)."""
        uv = uv.copy()
        at_pole: list[tuple[int, int] | None] = [None] * len(uv)
        for axis in range(2):
            for end in range(2):
                pole = self.poles[axis][end]
                if pole is not None:
                    for k in np.flatnonzero(np.linalg.norm(points - pole, axis=-1) <= self.tolerance):
                        at_pole[k] = (axis, end)
                        uv[k] = uv[k] * 0 + np.nan
                        uv[k, axis] = self.range[axis, end]
        for axis in range(2):
            known = np.flatnonzero(np.isfinite(uv[:, axis]))
            if not len(known):
                return None, (None, None)
            values = uv[known, axis]
            if self.closed[axis]:
                values = np.unwrap(values, period=self.period[axis])
            uv[:, axis] = np.interp(np.arange(len(uv)), known, values)
        return uv, (at_pole[0], at_pole[-1])

    def _shift(self, last: np.ndarray, begin: np.ndarray, pole: tuple[int, int] | None) -> np.ndarray:
        """What brings the next piece to the end of the last one: periods, to the left of a side that is a point."""
        shift = np.zeros(2)
        for axis in np.flatnonzero(self.closed):
            turns = (last[axis] - begin[axis]) / self.period[axis]
            shift[axis] = np.round(turns) * self.period[axis]
            if pole is not None and pole[0] != axis:
                way = 1.0 if (axis == 0) == (pole[1] == 0) else -1.0  # +u at the start of v, +v at the end of u
                ahead = (-way * turns) % 1.0
                ahead = 1.0 if ahead < 1e-6 else ahead
                shift[axis] = last[axis] + way * ahead * self.period[axis] - begin[axis]
        return shift

    def _along_pole(
        self, last: np.ndarray, begin: np.ndarray, pole: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[bool, bool]]:
        return np.stack([last, begin]), (pole[0] == 0, pole[0] == 1)

    def _constant(self, uv: np.ndarray, points: np.ndarray) -> tuple[bool, bool]:
        found = []
        for axis in range(2):
            fixed = uv.copy()
            fixed[:, axis] = (uv[0, axis] + uv[-1, axis]) / 2
            found.append(bool(np.ptp(uv[:, axis]) < 0.01 * self.period[axis] and self.near(fixed, points)))
        return found[0], found[1]

    def box(self, outlines: Sequence[_Outline]) -> np.ndarray | None:
        """The rectangle "axis end" inside outlines, unwrapped."""
        around = [o for o in outlines if any(o.turns)]
        if not outlines:
            return self.range if all(self.closed) or self._balloon() else None
        if not around:
            return self._inside(outlines[0]) if len(outlines) == 1 else None
        if len(around) != len(outlines) or len(around) > 2:
            return None
        axis = 0 if around[0].turns[0] else 1
        return self._band(around, axis)

    def _balloon(self) -> bool:
        """Closed one way, and drawn together to points the other way."""
        return any(c and all(p is not None for p in self.poles[1 - axis]) for axis, c in enumerate(self.closed))

    def _inside(self, outline: _Outline) -> np.ndarray | None:
        corners = outline.corners()
        low, high = corners.min(0), corners.max(0)
        size = high - low
        if (size > self.period * (1 + 1e-6)).any() or (size < 1e-9 * self.period).any():
            return None
        for ends, constant in outline.pieces:
            on = [
                constant[a] and (abs(ends[:, a] - bound[a]) <= 1e-4 * size[a]).all()
                for a in range(2)
                for bound in (low, high)
            ]
            if not any(on):
                return None
        x, y = ((corners - low) / size).T
        area = 0.5 * abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
        return np.stack([low, high], -1) if abs(area - 1) < 1e-3 else None

    def _band(self, around: Sequence[_Outline], axis: int) -> np.ndarray | None:
        """Between two outlines around a closed surface, or one of them and a side that is a point."""
        other, heights = 1 - axis, {}
        for outline in around:
            values = outline.corners()[:, other]
            turns = outline.turns[axis] * (1 if axis == 0 else -1)
            if outline.turns[other] or abs(turns) != 1 or not all(c[other] for _, c in outline.pieces):
                return None
            if np.ptp(values) > 1e-4 * self.period[other]:
                return None
            heights.setdefault(turns, []).append(float(values.mean()))
        box = self.range.copy()
        if len(around) == 2:
            if len(heights) == 2:
                low, high = heights[1][0], heights[-1][0]
            else:
                low, high = sorted(next(iter(heights.values())))
            if self.closed[other]:
                if len(heights) != 2:
                    return None
                high = low + (high - low) % self.period[other]
            box[other] = sorted([low, high])
        else:
            ((turns, (height,)),) = heights.items()
            wanted = int(turns == 1)  # the end of the range that is inside
            ends = [end for end in range(2) if self.poles[other][end] is not None]
            if wanted not in ends and len(ends) != 1:
                return None
            wanted = wanted if wanted in ends else ends[0]
            box[other, 1 - wanted] = height
        return box if box[other, 1] - box[other, 0] > 1e-9 * self.period[other] else None

    def cut(self, box: np.ndarray) -> Surface:
        """The surface over the rectangle."""
        surface, ranges = self.surface, []
        for axis in range(2):
            (start, end), (low, high) = box[axis], self.range[axis]
            if end - start > self.period[axis] * (1 - 1e-9):
                ranges.append(None)
                continue
            if self.closed[axis]:
                turns = np.floor((start - low) / self.period[axis] + 1e-9)
                start, end = start - turns * self.period[axis], end - turns * self.period[axis]
            slack = self._slack(axis)
            if end > high + slack:
                surface = repeated(surface, axis)
                high = low + 2 * self.period[axis]
            knots = breakpoints(surface, axis).values.numpy()
            start, end = (self._snapped(x, knots, slack) for x in (start, end))
            ranges.append(None if (start, end) == (low, high) else (max(start, low), min(end, high)))
        return restrict(surface, *ranges) if any(ranges) else surface

    def _slack(self, axis: int) -> float:
        """The step in a parameter that moves no point by more than a hundredth of the tolerance."""
        u, v = (tensor(np.linspace(low, high, 9)) for low, high in self.range)
        order = [(1, 0), (0, 1)][axis]
        speed = float(self.surface.derivative(u, v, order=order).norm(dim=-1).max())
        return max(1e-12 * self.period[axis], min(1e-6 * self.period[axis], 0.01 * self.tolerance / max(speed, 1e-300)))

    @staticmethod
    def _snapped(x: float, knots: np.ndarray, slack: float) -> float:
        nearest = knots[abs(knots - x).argmin()]
        return float(nearest if abs(nearest - x) <= slack else x)


def repeated(surface: Surface, axis: int) -> Surface:
    """A surface that closes in one direction, run through twice there."""
    surface = clamp(surface)
    p, t, H = surface.degree[axis], surface.knots[axis], surface.homogeneous.movedim(axis, 0)
    again = H[1:]
    if surface.weights is not None:
        scale = H[-1, :, -1] / H[0, :, -1]
        if not torch.allclose(scale, scale[:1], rtol=1e-9, atol=0):
            raise Unreadable("closed with other weights")
        again = again * scale[0]
    knots = [*surface.knots]
    knots[axis] = torch.cat([t[:-1], t[p + 1 :] + (t[-1] - t[0])])
    points = torch.cat([H, again]).movedim(0, axis)
    return Surface.from_homogeneous(points, knots, surface.degree, surface.weights is not None)
