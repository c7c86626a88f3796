"""A face of a file as a patch: its surface cut to its boundary where that is possible, whole where not."""

from collections.abc import Sequence

import numpy as np

from nurbs.files.exchange import Unreadable
from nurbs.files.trimming.basis_surfaces import BasisSurface, Plane, SplineSurface, extents, is_flat
from nurbs.files.trimming.flat_regions import flat_patch
from nurbs.files.trimming.rectangles import trim
from nurbs.geometry.curve import Curve
from nurbs.geometry.surface import Surface

NO_PATCH = "inside boundaries that no patch fills"


def read_face(
    surface: BasisSurface, loops: Sequence[Sequence[Curve]], uncertainty: float, tips: np.ndarray | None = None
) -> tuple[Surface, bool]:
    """The patch of a face, and whether its boundary is applied.

    Args:
        loops: the boundary, the inside to the left as seen from the side of S_u × S_v.
        uncertainty: the distance below which the file takes points for the same.
        tips: further points "m 3" of the boundary, where a cone ends.

    Raises:
        Unreadable: the surface has no end, and no patch ends at the boundary.
    """
    curves = [curve for loop in loops for curve in loop]
    in_space = [curve for curve in curves if curve.dim == 3]
    points = np.concatenate(
        [*([extents(in_space)] if in_space else []), *([tips] if tips is not None else [])] or [np.zeros((0, 3))]
    )
    if surface.finite and not in_space:
        points = surface.whole().control_points.numpy().reshape(-1, 3)
    size = float(np.ptp(points, axis=0).max()) if len(points) else 1.0
    tolerance = max(1e-6 * size, min(10 * uncertainty, 1e-4 * size))
    if isinstance(surface, Plane):
        found = flat_patch(loops, surface.normal, tolerance)
        if found is None:
            raise Unreadable(NO_PATCH)
        return found, True
    if not surface.finite and not len(points):
        raise Unreadable
    around = surface.around(points)
    if found := trim(around, loops, tolerance):
        return found, True
    normal = is_flat(around, tolerance) if isinstance(surface, SplineSurface) else None
    if normal is not None and len(in_space) == len(curves) and (found := flat_patch(loops, normal, tolerance)):
        return found, True
    if not surface.finite:
        raise Unreadable(NO_PATCH)
    return surface.whole(), False
