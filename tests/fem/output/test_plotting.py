"""Pictures: every kind draws without a display, a warning or a trace in pyplot; what cannot be drawn is named."""

from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fem.mesh.generators import unit_cube, unit_interval, unit_square
from fem.mesh.mesh import Mesh
from fem.output.plotting import plot
from fem.output.sampling import View, mosaic
from fem.reference.lagrange import Lagrange
from fem.reference.spline_element import BSpline
from fem.space.space import FunctionSpace, MixedSpace

DTYPE = torch.float64


@pytest.fixture(autouse=True)
def _no_figures_left():
    plt.close("all")
    yield
    plt.close("all")


def axes(spatial: bool = False):
    return Figure(dpi=40).add_subplot(projection="3d" if spatial else None)


def disk(n: int = 2) -> Mesh:
    """The unit disk from a few cubic quadrilaterals: the square's concentric squares become circles."""

    def swell(x: torch.Tensor) -> torch.Tensor:
        y = 2 * x - 1
        length = torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp(min=1e-12)
        return y * y.abs().amax(-1, keepdim=True) / length

    return unit_square(n).curved(3, swell)


def a_curve(dim: int) -> Mesh:
    t = torch.linspace(0, 3, 7, dtype=DTYPE)
    nodes = torch.stack([torch.cos(t), torch.sin(t), t], 1)[:, :dim]
    return Mesh(nodes, torch.stack([torch.arange(6), torch.arange(1, 7)], 1), cell="interval")


def a_surface() -> Mesh:
    flat = unit_square(3)
    nodes = torch.cat([flat.nodes, flat.nodes[:, :1] ** 2], 1)
    return Mesh(nodes, flat.cells, cell="quadrilateral")


MESHES = {
    "interval": lambda: unit_interval(4),
    "plane": lambda: unit_square(4, cell="triangle"),
    "disk": disk,
    "mixed": lambda: Mesh(
        torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [2, 0]], dtype=DTYPE),
        {"quadrilateral": torch.tensor([[0, 1, 2, 3]]), "triangle": torch.tensor([[1, 4, 2]])},
    ),
    "solid": lambda: unit_cube(2, cell="tetrahedron"),
    "curve in the plane": lambda: a_curve(2),
    "curve in space": lambda: a_curve(3),
    "surface": a_surface,
    "single precision": lambda: unit_square(3, dtype=torch.float32),
}


@pytest.mark.parametrize("edges_too", [False, True])
@pytest.mark.parametrize("kind", MESHES)
def test_every_kind_draws(kind: str, edges_too: bool):
    mesh = MESHES[kind]()
    d = mesh.nodes.shape[1]
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1), components=d)
    u = V.interpolate(lambda x: x[:, 0] ** 2).requires_grad_()
    drawn: tuple[Any, ...] = ((mesh,), (V,), (V, u), (W, 0.1 * W.dof_coordinates), (V, W.function(W.dof_coordinates)))
    for arguments in drawn:
        ax = plot(*arguments, ax=axes(d == 3), mesh=edges_too)
        ax.figure.canvas.draw()
        bars = len(ax.figure.axes) + len(ax.child_axes) - 1
        assert bars == int(len(arguments) == 2 and kind != "interval")
    assert plt.get_fignums() == []


def test_new_axes_are_those_of_pyplot():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    ax = plot(V, V.interpolate(1.0), label="density")
    assert ax.figure is plt.gcf()
    assert ax.child_axes[0].get_ylabel() == "density"
    assert ax.get_aspect() == 1
    assert plot(unit_cube(1)).name == "3d"


def test_curves():
    V = FunctionSpace(unit_interval(3), Lagrange(3))
    ax = plot(V, V.interpolate(lambda x: x[:, 0] ** 3), ax=axes(), label="cube")
    x, y = ax.lines[0].get_data()
    keep = np.isfinite(x)
    np.testing.assert_allclose(y[keep], x[keep] ** 3, atol=1e-12)
    assert keep.sum() > 60
    assert ax.get_ylabel() == "cube"
    W = FunctionSpace(V.mesh, Lagrange(1), components=2)
    ax = plot(W, W.interpolate(1.0), ax=axes())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["u[0]", "u[1]"]
    gap = Mesh(torch.tensor([[0.0], [1], [2], [3]], dtype=DTYPE), torch.tensor([[0, 1], [2, 3]]), cell="interval")
    V = FunctionSpace(gap, Lagrange(1))
    x = plot(V, V.interpolate(1.0), ax=axes()).lines[0].get_xdata()
    assert np.isnan(x).sum() == 1


def test_colours_span_the_values():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    u = V.interpolate(lambda x: x[:, 0])
    assert plot(V, u, ax=axes()).collections[0].get_clim() == (0, 1)
    assert plot(V, u, ax=axes(), limits=(-1.0, 2.0)).collections[0].get_clim() == (-1, 2)
    low, high = plot(V, V.interpolate(2.0), ax=axes()).collections[0].get_clim()
    assert low < 2 < high
    u[u == 1] = torch.nan
    ax = plot(V, u, ax=axes())
    assert ax.collections[0].get_clim() == (0, 0.75)
    ax.figure.canvas.draw()


def test_splines_draw():
    V = FunctionSpace(unit_square(3), BSpline.uniform((3, 3), 2))
    u = torch.ones(V.num_dofs, dtype=DTYPE)
    x, _, values = mosaic(View(V.mesh, (V, u), 1.0))
    assert values is not None
    np.testing.assert_allclose(values, np.ones(len(x)), atol=1e-14)
    plot(V, u, ax=axes()).figure.canvas.draw()


def test_what_cannot_be_drawn_is_named():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    u = torch.zeros(9, dtype=DTYPE)
    with pytest.raises(ValueError, match=r"'u' is a batch of shape \(3,\); pick an item"):
        plot(V, u.expand(3, 9))
    with pytest.raises(ValueError, match=r"'u' must have the shape \(9,\)"):
        plot(V, u[1:])
    with pytest.raises(ValueError, match="no finite value"):
        plot(V, u * torch.nan)
    with pytest.raises(TypeError, match="give the function space instead of the mesh"):
        plot(V.mesh, u)
    with pytest.raises(ValueError, match="'u' lives in a mixed space; pass its parts"):
        plot(MixedSpace(V, V), torch.zeros(18, dtype=DTYPE))
    with pytest.raises(ValueError, match="this mesh in 2-D needs a flat one"):
        plot(V, u, ax=axes(spatial=True))
    with pytest.raises(ValueError, match=r"this mesh in 3-D needs a three-dimensional picture: `plt\.subplots"):
        plot(unit_cube(1), ax=axes())
    assert plt.get_fignums() == []
