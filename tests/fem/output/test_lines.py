"""Values along lines, and their curves."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from torch.autograd import gradcheck

from fem import FunctionSpace, Lagrange, plot_line, unit_cube, unit_square, values_along


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def test_values_are_those_of_the_function():
    V = FunctionSpace(unit_cube(2, 2, 2), Lagrange(2), components=2)
    u = V.interpolate(lambda x: torch.stack([x.prod(1), x[:, 0].square()], 1))
    s, values = values_along(V, torch.stack([u, 2 * u]), [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 11)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(s, 3**0.5 * t)
    assert values.shape == (2, 11, 2)
    assert torch.allclose(values[1, :, 1], 2 * t**2, atol=1e-13)


def test_outside_is_nan_or_what_is_asked_for():
    V = FunctionSpace(unit_square(3, cell="triangle"), Lagrange(1))
    u = V.interpolate(lambda x: x[:, 0])
    _, values = values_along(V, u, [0.5, 0.5], [1.5, 0.5], 5)
    assert values.isnan().tolist() == [False] * 3 + [True] * 2
    assert values_along(V, u, [0.5, 0.5], [1.5, 0.5], 5, "nearest")[1].tolist() == pytest.approx([0.5, 0.75, 1, 1, 1])


def test_derivatives():
    V = FunctionSpace(unit_square(3, cell="triangle"), Lagrange(2))
    u = torch.rand(V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ends = torch.tensor([[0.11, 0.2], [0.93, 0.71]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u, ends: values_along(V, u, ends[0], ends[1], 6), (u, ends), fast_mode=True)


def test_curves_have_gaps_and_join_others():
    V = FunctionSpace(unit_square(3), Lagrange(1), components=2)
    u = V.interpolate(lambda x: x)
    ax = plot_line(V, u, [-0.5, 0.5], [1.0, 0.5], count=31)
    assert [line.get_label() for line in ax.lines] == ["u[0]", "u[1]"]
    assert bool(torch.tensor(ax.lines[0].get_ydata()[:10]).isnan().all())
    scalar = FunctionSpace(V.mesh, Lagrange(2))
    same = plot_line(V, scalar.function(scalar.interpolate(1.0)), [0.0, 0.5], [1.0, 0.5], ax, label="one")
    assert same is ax
    assert len(ax.lines) == 3
    assert ax.lines[2].get_label() == "one"
    ax.figure.canvas.draw()


def test_what_is_wrong_is_told():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    u = V.interpolate(1.0)
    with pytest.raises(ValueError, match="must be two points of 2 coordinates, not the same"):
        values_along(V, u, [0.0, 0.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="must be two points of 2 coordinates"):
        plot_line(V, u, [0.0], [1.0])
    with pytest.raises(ValueError, match="nothing to draw: no value between"):
        plot_line(V, u, [2.0, 0.0], [3.0, 0.0])
    with pytest.raises(ValueError, match="draws one field; got a batch"):
        plot_line(V, u.expand(3, -1), [0.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"`values_along\(count=...\)` must be"):
        values_along(V, u, [0.0, 0.0], [1.0, 0.0], 1)
