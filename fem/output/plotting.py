"""Pictures of fields and meshes with matplotlib: curves, coloured planes, deformed bodies, shaded surfaces of solids.

Everything is drawn from `fem.output.sampling` inside the cells. A solid is shown by its boundary.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.output.sampling import View, edges, mosaic, subdivision
from fem.output.vtk import checked_field
from fem.reference.cells import get_cell
from fem.space.evaluation import values_in_cells
from fem.space.field import Function
from fem.space.space import AnySpace, Space
from fem.support.checks import check_flags, check_kind, check_numbers, shown
from fem.support.modes import outside_modes

INK, FILL = "#1f2933", "#dfe7ef"


@outside_modes
def plot(
    V: AnySpace | Mesh,
    u: Tensor | Function | None = None,
    ax: Any = None,
    *,
    mesh: bool = False,
    colorbar: bool = True,
    label: str | None = None,
    cmap: str = "viridis",
    limits: tuple[float, float] | None = None,
    scale: float = 1.0,
) -> Any:
    """Draw the field u, or the mesh where there is none; returns the matplotlib Axes.

    In 1-D a curve for each component. In 2-D colours; a vector with as many components as the mesh has coordinates is a
    displacement: the mesh is drawn at x + scale · u and coloured by |u|. In 3-D the same on the boundary. Other vectors
    are coloured by |u| where they are.

    Args:
        V: the space of u, or just a mesh.
        u: dofs "n" or "n c", or a field `W.function(values)` over the same mesh. Gradients are cut; where u is NaN
            nothing is drawn.
        ax: axes to draw into, `projection="3d"` for solids and surfaces in space; new ones by default.
        mesh: also draw the edges of the cells, curved as they are (in 1-D a dot at every vertex).
        colorbar, label, cmap: the colour bar, its label (in 1-D the curve's) and matplotlib's name of the colours.
        limits: values at the ends of the colour bar; those of u by default.
        scale: exaggerates displacements; 0 leaves the mesh where it is.

    Raises:
        ValueError: a batch of fields, a wrong shape, a field without finite values, axes of the wrong projection.
        TypeError: not a field.
    """
    check_kind("plot", "V", V, Space | Mesh, "a function space or a mesh")
    check_flags("plot", mesh=mesh, colorbar=colorbar)
    check_numbers("plot", "finite", scale=scale)
    if ax is not None and not hasattr(ax, "get_xlim"):
        raise TypeError(f"`plot(ax=...)` must be matplotlib Axes; got {shown(ax)}.")
    if limits is not None:
        check_kind("plot", "limits", limits, tuple | list, "(lowest, highest)")
        ends: dict[str, Any] = {f"limits[{i}]": end for i, end in enumerate(limits)}
        check_numbers("plot", "finite", **ends)
        if len(limits) != 2 or not limits[0] < limits[1]:
            raise ValueError(f"`plot(limits=...)` must be (lowest, highest); got {shown(limits)}.")
    field = None
    if u is not None:
        if isinstance(V, Mesh):
            raise TypeError("`plot(mesh, u)` cannot know the basis of u; give the function space instead of the mesh.")
        field = checked_field("u", u, V)
        if not bool(torch.isfinite(field[1]).any()):
            raise ValueError("field 'u' has no finite value to plot.")
    domain = V if isinstance(V, Mesh) else V.mesh
    view = View(domain, field, scale)
    spatial = view.num_coordinates == 3
    if ax is None:
        ax = new_axes(spatial)
    elif (ax.name == "3d") != spatial:
        wanted = (
            'a three-dimensional picture: `plt.subplots(subplot_kw={"projection": "3d"})`' if spatial else "a flat one"
        )
        raise ValueError(f"the axes given do not fit; this mesh in {view.num_coordinates}-D needs {wanted}.")
    if view.num_coordinates == 1:
        draw_curve(ax, view, mesh or u is None, label)
        return ax
    norm = color_norm(view, limits) if field is not None else None
    if domain.dim == 1:
        draw_lines(ax, view, norm, cmap, mesh)
    elif spatial:
        draw_surface(ax, view, norm, cmap, mesh or u is None)
    else:
        draw_plane(ax, view, norm, cmap, mesh or u is None)
    if norm is not None and colorbar:
        add_colorbar(ax, norm, cmap, label if label is not None or not view.is_vector else "|u|")
    return ax


def color_norm(view: View, limits: tuple[float, float] | None) -> Any:
    from matplotlib.colors import Normalize

    assert view.field is not None
    if limits is None:
        space, dofs = view.field
        if space.moments is not None:  # which are no values
            parts = enumerate(space.mesh.blocks)
            dofs = torch.cat([values_in_cells(space, dofs, i, None, b.element.nodes).flatten(0, 1) for i, b in parts])
        nodal = view.scalar(dofs.reshape(len(dofs), -1).double().cpu().numpy())
        nodal = nodal[np.isfinite(nodal)]
        low, high = float(nodal.min(initial=np.inf)), float(nodal.max(initial=-np.inf))
        # A constant field still needs a range; round-off is no variation.
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            low, high = low - 0.5 * max(abs(low), 1e-30), high + 0.5 * max(abs(high), 1e-30)
        limits = low, high
    return Normalize(*limits)


def new_axes(spatial: bool) -> Any:
    import matplotlib.pyplot as plt

    kind = {"projection": "3d", "proj_type": "ortho"} if spatial else {}
    ax: Any = plt.subplots(layout="constrained", subplot_kw=kind)[1]
    if spatial:
        ax.view_init(elev=22, azim=-55)
    return ax


def add_colorbar(ax: Any, norm: Any, cmap: str, label: str | None) -> None:
    from matplotlib.cm import ScalarMappable

    look: dict[str, Any] = {"ax": ax, "shrink": 0.65, "pad": 0.08}
    if ax.name != "3d":  # exactly as high as the picture, whatever its aspect
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        look = {"cax": ax.inset_axes((1.03, 0, 0.04 * min(1.0, (top - bottom) / (right - left)), 1))}
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), label=label or "", **look)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize="small")


# -- drawing -----------------------------------------------------------------------------------------------------------


def draw_curve(ax: Any, view: View, mesh: bool, label: str | None) -> None:
    """u over an interval: one line per component, broken where the mesh has gaps."""
    parts = view.subdivisions(view.mesh.num_cells, 1)
    points, _ = subdivision(get_cell("interval"), parts)
    x, values = view.at(0, None, points)
    order = np.argsort(x[:, 0, 0])
    x, values = x[order, :, 0], np.zeros((*x.shape[:2], 1)) if values is None else values[order]
    gap = np.append(x[1:, 0] - x[:-1, -1] > 1e-9 * np.ptp(x), False)
    broken = np.where(gap[:, None], np.nan, x[:, -1:])
    line = np.concatenate([x, broken], 1).ravel()
    count = values.shape[-1]
    for c in range(count):
        name = label if count == 1 else f"{label or 'u'}[{c}]"
        y = np.concatenate([values[..., c], values[:, -1:, c]], 1).ravel()
        style = {"color": INK, "linewidth": 1.0} if view.field is None else {"linewidth": 1.8}
        (drawn,) = ax.plot(line, y, solid_capstyle="round", label=name, **style)
        if mesh:
            ends = np.concatenate([x[:, [0, -1]].ravel()]), values[:, [0, -1], c].ravel()
            ax.plot(*ends, "|" if view.field is None else ".", color=drawn.get_color(), markersize=8)
    ax.set_xlabel("x")
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    if view.field is None:
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
    elif count > 1:
        ax.legend(frameon=False)
    else:
        ax.set_ylabel(label or "")


def draw_lines(ax: Any, view: View, norm: Any, cmap: str, mesh: bool) -> None:
    """A curve in the plane or in space, coloured by u."""
    x, segments, values = mosaic(view)
    style: dict[str, Any] = {"color": INK, "linewidth": 1.0} if values is None else {"linewidth": 3.0}
    if values is not None:
        style |= {"array": np.ma.masked_invalid(values[segments].mean(1)), "cmap": cmap, "norm": norm}
    if view.num_coordinates == 3:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection

        ax.add_collection3d(Line3DCollection(list(x[segments]), **style))
        frame_space(ax, x)
    else:
        from matplotlib.collections import LineCollection

        ax.add_collection(LineCollection(list(x[segments]), capstyle="round", **style))
        frame_plane(ax)
    if mesh:
        ends = np.concatenate(
            [
                view.at(i, None, torch.tensor([[0.0], [1.0]], device="cpu"))[0].reshape(-1, x.shape[1])
                for i in range(len(view.mesh.blocks))
            ]
        )
        ax.plot(*ends.T, ".", color=INK, markersize=5)


def draw_plane(ax: Any, view: View, norm: Any, cmap: str, mesh: bool) -> None:
    """Cells in the plane: smooth colours, the outline, and the edges where asked."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap
    from matplotlib.tri import Triangulation

    x, triangles, values = mosaic(view)
    tiles = Triangulation(x[:, 0], x[:, 1], triangles)
    if values is None:
        ax.tripcolor(tiles, np.zeros(len(x)), cmap=ListedColormap([FILL]), shading="gouraud", rasterized=True)
    else:
        tiles.set_mask(~np.isfinite(values[triangles]).all(1))
        shown = np.where(np.isfinite(values), values, norm.vmin)
        ax.tripcolor(tiles, shown, cmap=cmap, norm=norm, shading="gouraud", rasterized=True)
    if view.moves:
        for lines in edges(view, only_boundary=True, still=True):
            ax.add_collection(LineCollection(list(lines), colors="#9aa5b1", linewidths=0.8, linestyles="--", zorder=0))
    if mesh:
        ink, alpha = (INK, 0.8) if values is None else ("white", 0.45)
        for lines in edges(view):
            ax.add_collection(LineCollection(list(lines), colors=ink, linewidths=line_width(view), alpha=alpha))
    for lines in edges(view, only_boundary=True):
        ax.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.9, capstyle="round"))
    frame_plane(ax)


def draw_surface(ax: Any, view: View, norm: Any, cmap: str, mesh: bool) -> None:
    """A surface in space, or the boundary of a solid, coloured by u and shaded by a light beside the observer."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    x, triangles, values = mosaic(view)
    corners = x[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    elevation, azimuth = np.deg2rad(ax.elev), np.deg2rad(ax.azim)
    observer = direction(elevation, azimuth)
    light = direction(elevation + 0.5, azimuth - 0.6)
    shade = (0.62 + 0.38 * np.abs(normals @ light))[:, None]
    if values is None:
        colors = np.tile(to_rgba(FILL), (len(corners), 1))
    else:
        mean = values[triangles].mean(1)
        corners, shade, mean = (part[np.isfinite(mean)] for part in (corners, shade, mean))
        colors = colormaps[cmap](norm(mean))
    colors[:, :3] *= shade
    lines, widths = colors, np.full(len(corners), 0.3)
    if mesh:
        # Edges are flat triangles among the others, so that matplotlib sorts all of them by depth together, and a
        # little nearer to the observer than the faces that they bound.
        ends = np.concatenate(
            [np.stack([e[:, :-1], e[:, 1:]], 2).reshape(-1, 2, 3) for e in edges(view, observer=observer)]
        )
        reach = 2 * np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=2).max()
        ends = (ends + reach * observer)[:, [0, 1, 1]]
        ink = np.tile(to_rgba(INK, 0.8), (len(ends), 1))
        corners, colors = np.concatenate([corners, ends]), np.concatenate([colors, ink])
        lines, widths = colors, np.append(widths, np.full(len(ends), line_width(view)))
    faces = Poly3DCollection(corners, facecolors=colors, edgecolors=lines, linewidths=widths, rasterized=True)
    ax.add_collection3d(faces)
    frame_space(ax, x)


def direction(elevation: float, azimuth: float) -> np.ndarray:
    flat = np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])


def line_width(view: View) -> float:
    """Thinner edges on finer meshes."""
    return float(np.clip(10 / view.mesh.num_cells ** (1 / view.mesh.dim), 0.2, 0.8))


def frame_plane(ax: Any) -> None:
    ax.set_aspect("equal")
    ax.margins(0.02)
    ax.autoscale_view()
    ax.spines[:].set_visible(False)
    ax.tick_params(length=2.5, color="#9aa5b1", labelsize="small")


def frame_space(ax: Any, x: np.ndarray) -> None:
    """Equal scales on all axes, few ticks and none where they would not fit, no grey panes."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    low, high = x.min(0), x.max(0)
    extent = np.maximum(high - low, 0.02 * (high - low).max())
    for axis, name, a, b in zip((ax.xaxis, ax.yaxis, ax.zaxis), "xyz", low, low + extent, strict=True):
        getattr(ax, f"set_{name}lim")(a, b)
        getattr(ax, f"set_{name}label")(name)
        share = (b - a) / extent.max()
        locator = MaxNLocator(max(1, round(4 * share)), steps=[1, 2, 5, 10]) if share > 0.12 else NullLocator()
        axis.set_major_locator(locator)
        axis.set_pane_color((1, 1, 1, 0))
        axis.line.set_color("#9aa5b1")
    ax.grid(False)
    ax.set_box_aspect(extent / extent.max())
    ax.tick_params(labelsize="small", color="#9aa5b1")
