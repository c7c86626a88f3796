"""Pictures of patches with matplotlib: curves with their control polygon, shaded surfaces with knot lines and net."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch

from fem.output.plotting import FILL, INK, direction, frame_plane, frame_space, new_axes
from fem.support.checks import check_integers
from nurbs.geometry.items import items, plain
from nurbs.geometry.learned import LearnedPatch
from nurbs.geometry.patch import Patch
from nurbs.geometry.surface import Surface
from nurbs.modelling.refinement import breakpoints, clamp
from nurbs.output.tessellation import grid_cells, sample_spans

NET = "#c2410c"


def plot(
    patch: Patch | LearnedPatch | Sequence[Patch | LearnedPatch],
    ax: Any = None,
    *,
    control_net: bool = True,
    knots: bool = True,
    subdivisions: int | None = None,
    color: str | None = None,
) -> Any:
    """Draw curves, surfaces and the faces of volumes, in the plane or in space; returns the matplotlib Axes.

    Args:
        patch: one or several, all with two or all with three coordinates; of a batch all items are drawn.
        ax: axes to draw into, `projection="3d"` for three coordinates; new ones by default.
        control_net: draw the control points, joined in every direction.
        knots: draw the images of the knots: points of a curve, lines on a surface.
        subdivisions: steps per knot span and direction; 32 for curves, and as many as give some 60 per direction,
            at least 4, otherwise.
        color: of curves and faces.

    Raises:
        ValueError: another number of coordinates; axes of the wrong projection.
    """
    check_integers("plot", optional=True, subdivisions=subdivisions)
    given = patch if isinstance(patch, Sequence) else [patch]
    patches = [item for one in given for item in items(one)]
    dims = {item.dim for item in patches}
    if dims not in ({2}, {3}):
        raise ValueError(f"`plot(patch)` draws patches with 2 or with 3 coordinates; got {sorted(dims)}.")
    spatial = dims == {3}
    ax = new_axes(spatial) if ax is None else ax
    if (ax.name == "3d") != spatial:
        wanted = 'a three-dimensional picture: `plt.subplots(subplot_kw={"projection": "3d"})`'
        raise ValueError(f"the axes given do not fit; this patch needs {wanted if spatial else 'a flat one'}.")
    drawn = []
    for item in patches:
        item = plain(item)
        if item.directions == 1:
            drawn.append(draw_curve(ax, item, knots, subdivisions or 32, color))
        else:
            drawn.append(draw_faces(ax, faces(item), knots, subdivisions, color or FILL))
        if control_net:
            drawn.append(draw_net(ax, item))
    if spatial:
        frame_space(ax, np.concatenate(drawn))
    else:
        frame_plane(ax)
    return ax


def draw_curve(ax: Any, curve: Patch, knots: bool, subdivisions: int, color: str | None) -> np.ndarray:
    u = sample_spans(curve, 0, subdivisions)
    x = curve(u).numpy()
    (line,) = ax.plot(*x.T, color=color, linewidth=1.8, solid_capstyle="round")
    if knots:
        ax.plot(*x[::subdivisions].T, linestyle="none", marker="|" if curve.dim == 2 else ".", color=line.get_color())
    return x


def faces(patch: Patch) -> list[Patch]:
    """A surface itself, or the six sides of a volume."""
    if patch.directions == 2:
        return [patch]
    patch, sides = clamp(patch), []
    for axis, end in product(range(3), (0, -1)):
        weights = None if patch.weights is None else patch.weights.select(axis, end)
        knots, degree = zip(
            *(x for k, x in enumerate(zip(patch.knots, patch.degree, strict=True)) if k != axis), strict=True
        )
        sides.append(Surface(patch.control_points.select(axis, end), weights, knots, degree))
    return sides


def draw_faces(ax: Any, surfaces: list[Patch], knots: bool, subdivisions: int | None, color: str) -> np.ndarray:
    """All as one collection of polygons, in space shaded by a light beside the observer, with their knot lines."""
    from matplotlib.colors import to_rgba

    tiles, lines, corners = [], [], []
    for surface in surfaces:
        spans = [len(breakpoints(surface, axis).values) - 1 for axis in range(2)]
        steps = [subdivisions or max(4, -(-60 // n)) for n in spans]
        x = surface(*(sample_spans(surface, axis, step) for axis, step in enumerate(steps))).numpy()
        corners.append(x.reshape(-1, x.shape[-1]))
        tiles.append(corners[-1][grid_cells(torch.arange(len(corners[-1]), device="cpu").reshape(x.shape[:2])).numpy()])
        lines += [*x[:: steps[0]], *x[:, :: steps[1]].swapaxes(0, 1)] if knots else []
    polygons = np.concatenate(tiles)
    fill = np.tile(to_rgba(color), (len(polygons), 1))
    if ax.name != "3d":
        from matplotlib.collections import LineCollection, PolyCollection

        ax.add_collection(PolyCollection(list(polygons), facecolors=fill, edgecolors=fill, linewidths=0.3))
        ax.add_collection(LineCollection(lines, colors=INK, linewidths=0.8, capstyle="round"))
        return np.concatenate(corners)
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    normals = np.cross(polygons[:, 2] - polygons[:, 0], polygons[:, 3] - polygons[:, 1])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    elevation, azimuth = np.deg2rad(ax.elev), np.deg2rad(ax.azim)
    observer, light = direction(elevation, azimuth), direction(elevation + 0.5, azimuth - 0.6)
    fill[:, :3] *= (0.62 + 0.38 * np.abs(normals @ light))[:, None]
    edges, widths = fill, np.full(len(polygons), 0.3)
    if lines:
        # Knot lines are flat polygons among the others, so that matplotlib sorts all of them by depth together, and a
        # little nearer to the observer than the faces that they lie on.
        reach = 2 * np.linalg.norm(polygons - polygons.mean(1, keepdims=True), axis=2).max()
        ends = np.concatenate([np.stack([line[:-1], line[1:]], 1) for line in lines]) + reach * observer
        ink = np.tile(to_rgba(INK, 0.8), (len(ends), 1))
        polygons, fill = np.concatenate([polygons, ends[:, [0, 1, 1, 1]]]), np.concatenate([fill, ink])
        edges, widths = fill, np.append(widths, np.full(len(ends), 0.7))
    ax.add_collection3d(Poly3DCollection(polygons, facecolors=fill, edgecolors=edges, linewidths=widths))
    return np.concatenate(corners)


def draw_net(ax: Any, patch: Patch) -> np.ndarray:
    """The control points, joined in every direction."""
    points = patch.control_points.numpy()
    for axis in range(patch.directions):
        for line in np.moveaxis(points, axis, -2).reshape(-1, patch.shape[axis], patch.dim):
            look = {"color": NET, "linewidth": 0.8, "marker": "o", "markersize": 3, "alpha": 0.8}
            ax.plot(*line.T, **look, clip_on=False, in_layout=False)
    return points.reshape(-1, patch.dim)
