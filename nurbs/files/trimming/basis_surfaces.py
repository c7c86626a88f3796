"""The surfaces that files cut faces from, by their own parameters u and v, in three dimensions.

Planes o + u x + v y, curves C(v) turned by the angle u around an axis (cylinders, cones, spheres, tori), curves moved,
C(u) + v d, and splines. What they give are exact patches over rectangles of parameters.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, isfinite, pi

import numpy as np

from nurbs.files.exchange import Unreadable, moved, tensor
from nurbs.files.trimming.basis_curves import BasisCurve, Conic, ellipse, line
from nurbs.geometry.curve import Curve
from nurbs.geometry.surface import Surface
from nurbs.modelling.primitives import extrude, revolve
from nurbs.modelling.refinement import restrict
from nurbs.modelling.transformation import transform

Range = tuple[float, float]


class BasisSurface(ABC):
    """(u, v) ↦ S(u, v) over `ranges`, which may have no end."""

    ranges: tuple[Range, Range]
    periods: tuple[float | None, float | None] = (None, None)

    @abstractmethod
    def piece(self, u: Range, v: Range) -> Surface:
        """The patch over a rectangle of parameters."""

    @abstractmethod
    def moved(self, matrix: np.ndarray) -> "BasisSurface":
        """The image under a rotation and translation "4 4"."""

    def reach(self, points: np.ndarray) -> tuple[Range, Range]:
        """A rectangle of parameters whose image holds all parts of the surface between these points "m 3"."""
        return self.ranges

    @property
    def finite(self) -> bool:
        return all(isfinite(bound) for bounds in self.ranges for bound in bounds)

    def whole(self) -> Surface:
        """The surface over all of its parameters.

        Raises:
            Unreadable: they have no end.
        """
        if not self.finite:
            raise Unreadable
        return self.piece(*self.ranges)

    def around(self, points: np.ndarray) -> Surface:
        """The surface as far as a face with these points on its boundary can reach."""
        return self.piece(*self.reach(points))

    def cut(self, u: tuple[float, float, bool], v: tuple[float, float, bool]) -> Surface:
        """The patch between two parameters each way, in the direction of the parameter or against it."""
        found = []
        for (first, last, forward), whole, period in zip((u, v), self.ranges, self.periods, strict=True):
            first, last = (first, last) if forward or period is None else (last, first)
            if period is None:
                first, last = sorted((first, last))
            else:
                width = (last - first) % period
                first = whole[0] + (first - whole[0]) % period
                last = first + (width if 1e-9 * period < width < (1 - 1e-9) * period else period)
            if not first < last:
                raise Unreadable("cut to nothing")
            found.append((first, last))
        return self.piece(found[0], found[1])


@dataclass(frozen=True, eq=False)
class Plane(BasisSurface):
    origin: np.ndarray
    x: np.ndarray
    y: np.ndarray
    ranges: tuple[Range, Range] = ((-inf, inf), (-inf, inf))

    @property
    def normal(self) -> np.ndarray:
        n = np.cross(self.x, self.y)
        return n / np.linalg.norm(n)

    def piece(self, u: Range, v: Range) -> Surface:
        grid = [[self.origin + a * self.x + b * self.y for b in v] for a in u]
        return Surface(tensor(np.array(grid)), degree=1)

    def moved(self, matrix: np.ndarray) -> "Plane":
        A = matrix[:3, :3]
        return Plane(A @ self.origin + matrix[:3, 3], A @ self.x, A @ self.y)


@dataclass(frozen=True, eq=False)
class Revolved(BasisSurface):
    """A curve turned around the axis through `point`; where it is a line that meets the axis, there is a tip."""

    profile: BasisCurve
    point: np.ndarray
    axis: np.ndarray

    @property
    def ranges(self) -> tuple[Range, Range]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (0.0, 2 * pi), (self.profile.start, self.profile.end)

    @property
    def periods(self) -> tuple[float | None, float | None]:  # pyright: ignore[reportIncompatibleVariableOverride]
        closes = self.profile.period is not None and self.profile.end - self.profile.start == self.profile.period
        return 2 * pi, self.profile.period if closes else None

    def piece(self, u: Range, v: Range) -> Surface:
        parts = self.profile.cut(*v)
        if len(parts) != 1:
            raise Unreadable("cut across its seam")
        start, width = u[0], min(u[1] - u[0], 2 * pi)
        curve, axis, point = parts[0], tensor(self.axis), tensor(self.point)
        if start:
            turned = turn(self.axis, start)
            curve = transform(curve, tensor(turned), tensor(self.point - turned @ self.point))
        return revolve(curve, tensor(np.array(width)), axis, point)

    def moved(self, matrix: np.ndarray) -> "Revolved":
        A = matrix[:3, :3]
        axis = np.sign(np.linalg.det(A)) * A @ self.axis
        return Revolved(self.profile.moved(matrix), A @ self.point + matrix[:3, 3], axis / np.linalg.norm(axis))

    def reach(self, points: np.ndarray) -> tuple[Range, Range]:
        u, v = self.ranges
        if isfinite(v[0]) and isfinite(v[1]):
            return u, v
        if not isinstance(self.profile, Conic) or self.profile.kind != "line":
            raise Unreadable
        origin, along = self.profile.origin - self.point, self.profile.x
        rise = along @ self.axis
        if abs(rise) < 1e-9 * np.linalg.norm(along):
            raise Unreadable
        t = ((points - self.point) @ self.axis - origin @ self.axis) / rise
        low, high = float(t.min()), float(t.max())
        tip = self.tip()
        if tip is not None:
            if (low + high) / 2 < tip:
                low, high = low, (tip if high - low < 1e-9 * abs(tip - low) else min(high, tip))
            else:
                low, high = (tip if high - low < 1e-9 * abs(high - tip) else max(low, tip)), high
        if not low < high:
            raise Unreadable
        return u, (low, high)

    def tip(self) -> float | None:
        """The parameter at which a line meets the axis."""
        assert isinstance(self.profile, Conic)
        e = self.axis
        a, b = (x - (x @ e) * e for x in (self.profile.origin - self.point, self.profile.x))
        if np.linalg.norm(b) < 1e-12 * np.linalg.norm(self.profile.x):
            return None
        t = -float(a @ b) / float(b @ b)
        return t if np.linalg.norm(a + t * b) <= 1e-9 * (np.linalg.norm(a) + 1e-300) else None


@dataclass(frozen=True, eq=False)
class Extruded(BasisSurface):
    """C(u) + v d."""

    profile: BasisCurve
    way: np.ndarray

    @property
    def ranges(self) -> tuple[Range, Range]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self.profile.start, self.profile.end), (-inf, inf)

    @property
    def periods(self) -> tuple[float | None, float | None]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.profile.period, None

    def piece(self, u: Range, v: Range) -> Surface:
        parts = self.profile.cut(*u)
        if len(parts) != 1:
            raise Unreadable("of a curve in several pieces")
        start = transform(parts[0], offset=tensor(v[0] * self.way)) if v[0] else parts[0]
        return extrude(start, tensor((v[1] - v[0]) * self.way))

    def moved(self, matrix: np.ndarray) -> "Extruded":
        return Extruded(self.profile.moved(matrix), matrix[:3, :3] @ self.way)

    def reach(self, points: np.ndarray) -> tuple[Range, Range]:
        if not (isfinite(self.profile.start) and isfinite(self.profile.end)):
            raise Unreadable
        square = self.way @ self.way
        own = np.concatenate([c.control_points.numpy() for c in self.profile.whole()]) @ self.way / square
        at = points @ self.way / square
        return self.ranges[0], (float(at.min() - own.max()), float(at.max() - own.min()))


@dataclass(frozen=True, eq=False)
class SplineSurface(BasisSurface):
    surface: Surface

    @property
    def ranges(self) -> tuple[Range, Range]:  # pyright: ignore[reportIncompatibleVariableOverride]
        u, v = ((float(low), float(high)) for low, high in self.surface.domain())
        return u, v

    def piece(self, u: Range, v: Range) -> Surface:
        cuts = []
        for (low, high), whole in zip((u, v), self.ranges, strict=True):
            slack = 1e-9 * (whole[1] - whole[0])
            if low < whole[0] - slack or high > whole[1] + slack:
                raise Unreadable("cut where it is not")
            same = abs(low - whole[0]) <= slack and abs(high - whole[1]) <= slack
            cuts.append(None if same else (max(low, whole[0]), min(high, whole[1])))
        return restrict(self.surface, *cuts) if any(cuts) else self.surface

    def moved(self, matrix: np.ndarray) -> "SplineSurface":
        return SplineSurface(moved(self.surface, matrix))


def turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """The rotation "3 3" around an axis of length one (Rodrigues)."""
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def cylinder(origin: np.ndarray, frame: np.ndarray, radius: float) -> Revolved:
    return cone(origin, frame, radius, 0.0)


def cone(origin: np.ndarray, frame: np.ndarray, radius: float, angle: float) -> Revolved:
    """Of this radius at v = 0, which is the height; the angle is that between axis and side."""
    x, _, z = frame
    return Revolved(line(origin + radius * x, z + np.tan(angle) * x), origin, z)


def sphere(origin: np.ndarray, frame: np.ndarray, radius: float) -> Revolved:
    """u is the longitude, v the latitude."""
    x, _, z = frame
    return Revolved(Conic("ellipse", origin, radius * x, radius * z, -pi / 2, pi / 2), origin, z)


def torus(origin: np.ndarray, frame: np.ndarray, major: float, minor: float) -> Revolved:
    x, _, z = frame
    return Revolved(ellipse(origin + major * x, minor * x, minor * z), origin, z)


def is_flat(surface: Surface, tolerance: float) -> np.ndarray | None:
    """The normal of a surface whose control points lie in a plane."""
    points = surface.control_points.numpy().reshape(-1, 3)
    *_, rows = np.linalg.svd(points - points.mean(0), full_matrices=False)
    normal = rows[-1]
    if len(points) < 4 or abs((points - points.mean(0)) @ normal).max() > tolerance:
        return None
    middle = [[float(sum(bounds)) / 2] for bounds in surface.domain()]
    side = surface.normal(*(tensor(np.array(m)) for m in middle))[0, 0].numpy()
    return normal if normal @ side > 0 else -normal


def extents(curves: list[Curve]) -> np.ndarray:
    """Control points "m 3" of curves: the curves lie in their convex hull."""
    return np.concatenate([curve.control_points.numpy() for curve in curves])
