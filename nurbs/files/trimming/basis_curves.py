"""The curves that files cut pieces from: lines, conics and splines by their own parameter t, in three dimensions.

    line o + t x;   ellipse o + cos t x + sin t y;   hyperbola o + cosh t x + sinh t y;   parabola o + t² x + 2 t y

Pieces are exact: a conic between two parameters is a rational quadratic (The NURBS Book, sections 7.3 to 7.6), a part
of a spline is found by knot insertion.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import ceil, inf, isfinite, pi

import numpy as np
import torch

from nurbs.files.exchange import Unreadable, moved, tensor
from nurbs.fitting.foot_points import foot_points
from nurbs.geometry.curve import Curve
from nurbs.modelling.primitives import arc
from nurbs.modelling.refinement import restrict
from nurbs.modelling.transformation import reparametrize, reverse, transform

SAME = 1e-9  # parameters that differ by less than this part of a period or range are the same
LARGEST_ARGUMENT = 300.0  # of cosh


class BasisCurve(ABC):
    """t ↦ C(t) on [start, end]; a curve with a period closes there."""

    start: float
    end: float
    period: float | None

    @abstractmethod
    def at(self, t: float) -> np.ndarray:
        """C(t), "3"."""

    @abstractmethod
    def parameter(self, point: np.ndarray) -> float:
        """The parameter of a point on the curve; `at` says how far off a point is."""

    @abstractmethod
    def piece(self, first: float, last: float) -> list[Curve]:
        """The curve between two parameters, first < last, that are no more than a period apart."""

    @abstractmethod
    def moved(self, matrix: np.ndarray) -> "BasisCurve":
        """The image under a map "4 4"."""

    def whole(self) -> list[Curve]:
        """The curve from end to end.

        Raises:
            Unreadable: it has no ends.
        """
        if not (isfinite(self.start) and isfinite(self.end)):
            raise Unreadable
        return self.piece(self.start, self.end)

    def cut(self, first: float, last: float, forward: bool = True) -> list[Curve]:
        """From one parameter to another, along the curve or against it, around a closed one if need be."""
        if not (isfinite(first) and isfinite(last)):
            raise Unreadable("cut where its numbers are not finite")
        if not forward:
            return [reverse(curve) for curve in reversed(self.cut(last, first))]
        if self.period is not None:
            first = self.start + (first - self.start) % self.period
            if first - self.start > self.period * (1 - SAME):
                first = self.start
            width = (last - first) % self.period
            near = width < SAME * self.period or width > (1 - SAME) * self.period
            return self.piece(first, first + (self.period if near else width))
        reach = self.end - self.start
        slack = SAME * (reach if isfinite(reach) else abs(last - first))
        if not self.start - slack <= first < last <= self.end + slack:
            raise Unreadable("cut where it is not")
        return self.piece(max(first, self.start), min(last, self.end))


@dataclass(frozen=True, eq=False)
class Conic(BasisCurve):
    """One of the four formulas above; `x` and `y` are the vectors in them, "3"."""

    kind: str
    origin: np.ndarray
    x: np.ndarray
    y: np.ndarray
    start: float = -inf
    end: float = inf

    @property
    def period(self) -> float | None:
        return 2 * pi if self.kind == "ellipse" else None

    def at(self, t: float) -> np.ndarray:
        if self.kind == "line":
            return self.origin + t * self.x
        if self.kind == "ellipse":
            return self.origin + np.cos(t) * self.x + np.sin(t) * self.y
        if self.kind == "parabola":
            return self.origin + t * t * self.x + 2 * t * self.y
        if not abs(t) < LARGEST_ARGUMENT:
            raise Unreadable("cut where its numbers are too large")
        return self.origin + np.cosh(t) * self.x + np.sinh(t) * self.y

    def parameter(self, point: np.ndarray) -> float:
        axes = self.x[:, None] if self.kind == "line" else np.column_stack([self.x, self.y])
        a, b = [*np.linalg.lstsq(axes, point - self.origin, rcond=None)[0], 0.0][:2]
        if self.kind == "line":
            return float(a)
        if self.kind == "ellipse":
            return float(np.arctan2(b, a)) % (2 * pi)
        return float(np.arcsinh(b) if self.kind == "hyperbola" else b / 2)

    def moved(self, matrix: np.ndarray) -> "Conic":
        A = matrix[:3, :3]
        return replace(self, origin=A @ self.origin + matrix[:3, 3], x=A @ self.x, y=A @ self.y)

    def piece(self, first: float, last: float) -> list[Curve]:
        if self.kind == "line":
            return [Curve(tensor(np.stack([self.at(first), self.at(last)])), degree=1)]
        frame = tensor(np.column_stack([self.x, self.y]))
        if self.kind == "ellipse":
            full = abs(last - first - 2 * pi) < SAME * 2 * pi
            angle = 2 * pi if full else last - first
            unit = arc(*(torch.tensor(v, dtype=torch.float64, device="cpu") for v in (1.0, angle, first)))
            return [transform(unit, frame, tensor(self.origin))]
        middle, half = (first + last) / 2, (last - first) / 2
        ends = [self.at(first), self.at(last)]
        if self.kind == "parabola":  # the polar form of t² and 2 t at (first, last)
            between = self.origin + first * last * self.x + (first + last) * self.y
            return [Curve(tensor(np.stack([ends[0], between, ends[1]])), degree=2)]
        self.at(half)
        between = self.origin + (np.cosh(middle) * self.x + np.sinh(middle) * self.y) / np.cosh(half)
        weights = tensor(np.array([1.0, np.cosh(half), 1.0]))
        return [Curve(tensor(np.stack([ends[0], between, ends[1]])), weights, degree=2)]


def line(origin: np.ndarray, direction: np.ndarray) -> Conic:
    return Conic("line", origin, direction, 0 * direction)


def ellipse(origin: np.ndarray, x: np.ndarray, y: np.ndarray) -> Conic:
    return Conic("ellipse", origin, x, y, 0.0, 2 * pi)


@dataclass(frozen=True, eq=False)
class Spline(BasisCurve):
    """A B-spline, a Bézier curve or a polygon."""

    curve: Curve

    @property
    def start(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return float(self.curve.domain()[0][0])

    @property
    def end(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return float(self.curve.domain()[0][1])

    @property
    def period(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        size = float(self.curve.control_points.std(0).norm())
        gap = np.linalg.norm(self.at(self.start) - self.at(self.end))
        return self.end - self.start if gap <= SAME * size else None

    def at(self, t: float) -> np.ndarray:
        inside, p = min(max(t, self.start), self.end), self.curve.degree[0]
        ends = self.curve.knots[0][[p, -p - 1]] == self.curve.knots[0][[0, -1]]  # clamped there
        if inside == self.start and ends[0]:
            return self.curve.control_points[0].numpy()
        if inside == self.end and ends[1]:
            return self.curve.control_points[-1].numpy()
        return self.curve(tensor(np.array([inside])))[0].numpy()

    def parameter(self, point: np.ndarray) -> float:
        size = float(self.curve.control_points.std(0).norm())
        for end in (self.start, self.end):
            if np.linalg.norm(self.at(end) - point) <= SAME * size:
                return end
        return float(foot_points(self.curve, tensor(point[None]))[0, 0])

    def moved(self, matrix: np.ndarray) -> "Spline":
        return Spline(moved(self.curve, matrix))

    def piece(self, first: float, last: float) -> list[Curve]:
        slack = SAME * (self.end - self.start)
        if last > self.end + slack:  # around the seam
            wrapped = last - (self.end - self.start)
            return [*self.piece(first, self.end), *(self.piece(self.start, wrapped) if wrapped > self.start else [])]
        first = self.start if first - self.start < slack else first
        last = self.end if self.end - last < slack else last
        if (first, last) == (self.start, self.end):
            return [self.curve]
        return [restrict(self.curve, (first, last))]


@dataclass(frozen=True, eq=False)
class Composite(BasisCurve):
    """Curves one after another, each one long in the parameter."""

    parts: list[Curve]
    start: float = 0.0

    @property
    def end(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return float(len(self.parts))

    @property
    def period(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        size = float(torch.cat([part.control_points for part in self.parts]).std(0).norm())
        gap = np.linalg.norm(self.at(self.start) - self.at(self.end))
        return self.end if gap <= SAME * size else None

    def _part(self, index: int) -> Spline:
        return Spline(reparametrize(self.parts[index]))

    def at(self, t: float) -> np.ndarray:
        index = min(max(ceil(t) - 1, 0), len(self.parts) - 1)
        return self._part(index).at(t - index)

    def parameter(self, point: np.ndarray) -> float:
        found = [i + self._part(i).parameter(point) for i in range(len(self.parts))]
        return min(found, key=lambda t: float(np.linalg.norm(self.at(t) - point)))

    def moved(self, matrix: np.ndarray) -> "Composite":
        return Composite([moved(part, matrix) for part in self.parts])

    def piece(self, first: float, last: float) -> list[Curve]:
        if last > self.end + SAME:
            wrapped = last - self.end
            return [*self.piece(first, self.end), *(self.piece(0.0, wrapped) if wrapped > SAME else [])]
        found: list[Curve] = []
        for i in range(len(self.parts)):
            low, high = max(first - i, 0.0), min(last - i, 1.0)
            if high - low > SAME:
                found += [self.parts[i]] if (low, high) == (0.0, 1.0) else self._part(i).piece(low, high)
        return found
