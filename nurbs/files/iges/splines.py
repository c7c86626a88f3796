"""B-spline curves (126) and surfaces (128) of IGES files, between the parameters that are said to be in use."""

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import make_patch, read_integers, u_fastest
from nurbs.files.iges.directory import Entity
from nurbs.geometry.patch import Patch
from nurbs.modelling.refinement import restrict

NEAR = 1e-7  # ends of ranges that differ by less than this part are the same; files have few digits


def read_spline(entity: Entity, matrix: np.ndarray) -> Patch:
    """The patch in the coordinates to which the map "4 4" leads."""
    r = 1 if entity.kind == 126 else 2
    head = read_integers(entity.numbers(1, 2 * r), entity.where)
    counts, degree = [k + 1 for k in head[:r]], head[r:]
    if min(counts) < 1 or min(degree) < 0:
        raise GeometryError(f"{entity.where}: control points {counts} and degrees {degree} make no sense.")
    place, knots = 1 + 2 * r + (4 if r == 1 else 5), []
    for n, p in zip(counts, degree, strict=True):
        knots.append(entity.numbers(place, n + p + 1))
        place += n + p + 1
    number = int(np.prod(counts, dtype=object))
    weights = entity.numbers(place, number)
    points = entity.numbers(place + number, 3 * number).reshape(number, 3)
    if (matrix != np.eye(4)).any():
        with np.errstate(all="ignore"):  # what is not finite is reported below
            points = points @ matrix[:3, :3].T + matrix[:3, 3]
    table = u_fastest(np.column_stack([points, weights]), counts, entity.where)
    patch = make_patch(table[..., :3], table[..., 3], knots, degree, entity.where)
    return in_use(entity, patch, place + 4 * number)


def end_of_spline(entity: Entity) -> int:
    """Where the parameters of 126 or 128 end."""
    r = 1 if entity.kind == 126 else 2
    head = read_integers(entity.numbers(1, 2 * r), entity.where)
    number = int(np.prod([k + 1 for k in head[:r]], dtype=object))
    knots = sum(n + 1 + p + 1 for n, p in zip(head[:r], head[r:], strict=True))
    return 1 + 2 * r + (4 if r == 1 else 5) + knots + 4 * number + (5 if r == 1 else 4)


def in_use(entity: Entity, patch: Patch, place: int) -> Patch:
    """The part of the patch between the parameters from `place` on, where they are there."""
    count = 2 * patch.directions
    if len(entity.words) < place + count:
        return patch
    ranges, cuts = entity.finite(place, count).reshape(-1, 2), []
    if not ranges.any():
        return patch
    for (low, high), bounds in zip(ranges.tolist(), patch.domain(), strict=True):
        start, end = map(float, bounds)
        slack = NEAR * max(end - start, abs(start), abs(end))
        if not (start - slack <= low < high <= end + slack):
            raise GeometryError(f"{entity.where}: parameters from {low} to {high} are not within {start} to {end}.")
        low, high = (low if low - start > slack else None), (high if end - high > slack else None)
        cuts.append(None if low is None and high is None else (low, high))
    return restrict(patch, *cuts) if any(cuts) else patch
