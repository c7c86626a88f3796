"""Plane faces as patches: the whole disk of an ellipse, the ring between two circles, and what lies between two curves.

Between two curves with the same ends, or with their ends joined by straight ones (a rectangle, a triangle, a sector, a
slot), the ruled patch fills the region exactly where it does not fold: its area is then that inside the curves,
½ ∮ n · (x × dx).
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isclose, pi

import numpy as np
import torch

from fem.reference.quadrature import quadrature
from nurbs.files.exchange import tensor
from nurbs.files.trimming.rectangles import samples, smooth_parts
from nurbs.geometry.curve import Curve
from nurbs.geometry.surface import Surface
from nurbs.modelling.primitives import annulus, disk, ruled
from nurbs.modelling.refinement import breakpoints, clamp
from nurbs.modelling.transformation import reverse, transform

Loop = Sequence[Curve]
POINTS = 16  # per span and direction, for areas
SAME = 1e-9  # areas that differ by this part are the same


def flat_patch(loops: Sequence[Loop], normal: np.ndarray, tolerance: float) -> Surface | None:
    """The plane region inside the loops; None where it is none of those above.

    Args:
        normal: the side to which the patch's normal points.
        tolerance: a distance below which points are the same.
    """
    edges = [[clamp(part) for curve in loop for part in smooth_parts(curve)] for loop in loops]
    points = [np.concatenate([samples(edge) for edge in loop]) for loop in edges if loop]
    if len(points) != len(loops) or not loops:
        return None
    origin = points[0].mean(0)
    if max(abs((p - origin) @ normal).max() for p in points) > tolerance or not all(map(_closes, edges, points)):
        return None
    x = np.cross(normal, np.eye(3)[abs(normal).argmin()])
    frame = np.stack([x := x / np.linalg.norm(x), np.cross(normal, x)])
    rounds = [_ellipse((p - origin) @ frame.T, tolerance) for p in points]
    whole = [
        round_ is not None and _is_whole(loop, round_[1], normal) for loop, round_ in zip(edges, rounds, strict=True)
    ]
    if len(loops) == 1 and whole[0] and rounds[0] is not None:
        center, axes = rounds[0]
        return transform(disk(tensor(np.ones(()))), tensor(frame.T @ axes), tensor(origin + center @ frame))
    if len(loops) == 2 and all(whole):
        return _ring([r for r in rounds if r is not None], origin, frame, tolerance)
    return _between(edges[0], normal) if len(loops) == 1 else None


def _closes(edges: Loop, points: np.ndarray) -> bool:
    ends = [samples(edge)[[0, -1]] for edge in edges]
    gaps = [np.linalg.norm(a[1] - b[0]) for a, b in zip([ends[-1], *ends[:-1]], ends, strict=True)]
    return bool(max(gaps) <= 1e-6 * np.linalg.norm(np.ptp(points, axis=0)))


def _ellipse(p: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The centre "2" and the half axes "2 2", as columns, of the ellipse on which the points lie."""
    middle = p.mean(0)
    scale = abs(p - middle).max()
    if len(p) < 6 or not scale > 0:
        return None
    x, y = ((p - middle) / scale).T
    *_, rows = np.linalg.svd(np.column_stack([x * x, x * y, y * y, x, y, np.ones_like(x)]))
    a, b, c, d, e, f = rows[-1] * np.sign(rows[-1][0] + rows[-1][2])
    M = np.array([[a, b / 2], [b / 2, c]])
    if np.linalg.det(M) < 1e-9:
        return None
    center = np.linalg.solve(2 * M, [-d, -e])
    level = center @ M @ center - f
    values, vectors = np.linalg.eigh(M)
    if not level > 0:
        return None
    axes = vectors * np.sqrt(level / values)
    axes[:, 1] *= np.sign(np.linalg.det(axes))
    if isclose(*np.linalg.norm(axes, axis=0), rel_tol=1e-9):
        axes = np.eye(2) * np.linalg.norm(axes, axis=0).mean()
    off = np.linalg.norm(np.linalg.solve(axes, np.stack([x, y]) - center[:, None]), axis=0) - 1
    if abs(off).max() * scale * np.linalg.norm(axes) > max(1e-9 * scale, 0.01 * tolerance):
        return None
    return middle + scale * center, scale * axes


def _is_whole(edges: Loop, axes: np.ndarray, normal: np.ndarray) -> bool:
    """Whether curves on an ellipse go around it once."""
    return isclose(abs(_area_inside(edges, normal)), pi * abs(np.linalg.det(axes)), rel_tol=1e-6)


def _ring(
    rounds: Sequence[tuple[np.ndarray, np.ndarray]], origin: np.ndarray, frame: np.ndarray, tolerance: float
) -> Surface | None:
    (c, a), (d, b) = sorted(rounds, key=lambda r: float(np.linalg.norm(r[1])))
    radii = [np.linalg.norm(m, axis=0) for m in (a, b)]
    circles = all(isclose(*r, rel_tol=1e-9) for r in radii)
    if not circles or np.linalg.norm(c - d) > max(1e-9 * radii[1][0], 0.01 * tolerance) or radii[0][0] >= radii[1][0]:
        return None
    flat = annulus(*(tensor(r[0]) for r in radii))
    return transform(flat, tensor(frame.T), tensor(origin + d @ frame))


def _between(edges: Loop, normal: np.ndarray) -> Surface | None:
    """The ruled patch between two of the curves, the others straight, if it does not fold."""
    sides = _merged(list(edges))
    area = _area_inside(sides, normal)
    straight = [_is_straight(side) for side in sides]
    size = float(torch.cat([side.control_points for side in sides]).std(0).norm())
    if not 2 <= len(sides) <= 4 or not abs(area) > SAME * size**2:
        return None
    for k in range(len(sides)):
        turned, flat = sides[k:] + sides[:k], straight[k:] + straight[:k]
        others = flat[1::2] if len(sides) > 3 else flat[1:] if len(sides) == 3 else [True]
        if not all(others):
            continue
        first = turned[0]
        if len(sides) == 3:
            tip = turned[2].control_points[:1]
            second = Curve(tip.expand(2, -1), degree=1)
        else:
            second = reverse(turned[len(sides) // 2])
        found = ruled(first, second)
        assert isinstance(found, Surface)
        if isclose(float(found.area(POINTS)), abs(area), rel_tol=SAME):
            return found if area > 0 else reverse(found, 1)
    return None


def _merged(edges: list[Curve]) -> list[Curve]:
    """Straight curves that follow each other in one direction made one."""
    ways = [_direction(edge) for edge in edges]
    same = [a is not None and b is not None and bool(a @ b > 1 - 1e-12) for a, b in pairwise([ways[-1], *ways])]
    if all(same):
        return edges
    first = same.index(False)
    found: list[Curve] = []
    for edge, goes_on in zip(edges[first:] + edges[:first], same[first:] + same[:first], strict=True):
        if goes_on:
            ends = torch.stack([found[-1].control_points[0], edge.control_points[-1]])
            found[-1] = Curve(ends, degree=1)
        else:
            found.append(edge)
    return found


def _direction(edge: Curve) -> np.ndarray | None:
    if not _is_straight(edge):
        return None
    way = (edge.control_points[-1] - edge.control_points[0]).numpy()
    return way / np.linalg.norm(way)


def _is_straight(edge: Curve) -> bool:
    """Control points on a segment, in their order."""
    x = edge.control_points.numpy()
    way = x[-1] - x[0]
    length = np.linalg.norm(way)
    if not length > 0:
        return False
    along = (x - x[0]) @ way / length
    off = np.linalg.norm(x - x[0] - along[:, None] * way / length, axis=-1)
    return bool(off.max() <= 1e-12 * length and (np.diff(along) >= 0).all())


def _area_inside(edges: Loop, normal: np.ndarray) -> float:
    """½ ∮ n · (x × dx), positive for a loop that runs counterclockwise."""
    rule, total = quadrature("interval", 2 * POINTS - 1), 0.0
    around = edges[0].control_points[0]
    for edge in edges:
        t = breakpoints(edge, 0).values
        points = torch.lerp(t[:-1, None], t[1:, None], rule.points[:, 0].cpu().double())
        x, dx = (v.unflatten(0, points.shape) for v in edge.derivatives(points.flatten(), orders=[(0,), (1,)]))
        density = torch.linalg.cross(x - around, dx) @ tensor(normal)
        total += 0.5 * float(((density @ rule.weights.cpu().double()) * t.diff()).sum())
    return total
