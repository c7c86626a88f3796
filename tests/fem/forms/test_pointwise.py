"""Integrands must be expressions at a point: on every mesh, in cells, on facets, in weak forms, in any batch."""

from typing import Any

import numpy as np
import pytest
import torch

from fem import Constant, Energy, FunctionSpace, Lagrange, Mesh, MixedSpace, WeakForm, gradient, unit_square
from solvers import minimize

F64 = torch.float64
norm = torch.linalg.vector_norm

NOT_POINTWISE = {
    "sum": lambda x, u, g: g.square().sum() - u,
    "sum over a leading axis": lambda x, u, g: g.square().sum(0).sum(-1) - u,
    "torch.sum": lambda x, u, g: torch.sum(g * g) * u,
    "mean": lambda x, u, g: g.square().sum(-1) + u.mean(),
    "mean of the gradient": lambda x, u, g: g.mean() * u,
    "norm": lambda x, u, g: g.norm() + 0 * u,
    "vector_norm": lambda x, u, g: norm(g) ** 2 + 0 * u,
    "norm of u": lambda x, u, g: g.square().sum(-1) / (1 + u.norm()),
    "max": lambda x, u, g: g.square().sum(-1) * u.max(),
    "min": lambda x, u, g: g.square().sum(-1) * u.min(),
    "amax": lambda x, u, g: u * g.amax(),
    "softmax": lambda x, u, g: torch.softmax(u, 0) * u,
    "logsumexp": lambda x, u, g: torch.logsumexp(u.flatten(), 0) * u,
    "cumulative": lambda x, u, g: u.cumsum(0),
    "cumulative in a cell": lambda x, u, g: u.cumsum(-1) if u.ndim else u,
    "roll": lambda x, u, g: u.roll(1, 0) * u if u.ndim else u * u,
    "flip": lambda x, u, g: u.flip(0) * u if u.ndim else u * u,
    "sorted": lambda x, u, g: u.flatten().sort().values.reshape(u.shape),
    "first entry": lambda x, u, g: u * u.flatten()[0],
    "last entry": lambda x, u, g: u - u.flatten()[-1],
    "variance": lambda x, u, g: u * u.var() if u.ndim else u,
    "standardised": lambda x, u, g: (u - u.mean()) ** 2,
    "product": lambda x, u, g: u + u.prod(),
    "median": lambda x, u, g: u * u.median(),
    "dot": lambda x, u, g: u * torch.dot(u.flatten(), u.flatten()),
    "einsum": lambda x, u, g: torch.einsum("...d,...d->", g, g) * u,
    "layer_norm": lambda x, u, g: torch.nn.functional.layer_norm(u, u.shape[-1:]) if u.ndim else u,
    "any": lambda x, u, g: torch.where((u > 0.6).any(), 2.0, 1.0) * u,
    "bounding box": lambda x, u, g: u * (x[..., 0].max() - x[..., 0].min()),
    "centre": lambda x, u, g: u * (x - x.mean((0, 1) if x.ndim > 1 else ())).square().sum(-1),
    "clipped by all": lambda x, u, g: u.clamp(max=u.mean()),
    "ndim": lambda x, u, g: (3.0 if x.ndim > 1 else 1.0) * u,
    "dim()": lambda x, u, g: u * x.dim(),
    "shape": lambda x, u, g: u * x.shape[0],
    "length": lambda x, u, g: u * len(x),
    "numel": lambda x, u, g: u / x.numel(),
    "size": lambda x, u, g: u * x.size(0),
    "number of points": lambda x, u, g: u.square() / u.numel(),
    "branch on the shape": lambda x, u, g: u if x.shape[:-1] else 2 * u,
    "item": lambda x, u, g: u * u.detach().max().item(),
    "distance to the first point": lambda x, u, g: u * (x - x.reshape(-1, 2)[0]).square().sum(-1),
}
LEAVING = {
    "numpy": lambda x, u, g: u * torch.from_numpy(np.sin(u.detach().numpy())),
    "array": lambda x, u, g: u * torch.tensor(np.asarray(g.detach())[..., 0]),
    "list": lambda x, u, g: u * torch.tensor(u.tolist(), dtype=F64),
    "made of u": lambda x, u, g: u * torch.from_numpy(np.exp((2 * u).detach().numpy())),
}
RIGHT = {
    "Poisson": lambda x, u, g: 0.5 * g.square().sum(-1) - u,
    "NumPy of points": lambda x, u, g: u * torch.from_numpy(np.where(x.detach().numpy()[..., 0] > 0.75, 10.0, 1.0)),
    "piecewise": lambda x, u, g: torch.where(x[..., 0] > 0.5, 2.0, 1.0) * g.square().sum(-1) + u.clamp(0.1, 0.6),
    "norms along directions": lambda x, u, g: (g.norm(dim=-1) + 1e-6) * u + g.amax(-1) + torch.softmax(g, -1)[..., 0],
    "negative axes": lambda x, u, g: g.mean(-1) * u + (x - 0.5).square().sum(-1).sqrt(),
    "logarithms": lambda x, u, g: (1 + u.square()).log() + u * g.square().sum(-1).sqrt(),
    "not finite": lambda x, u, g: torch.where(u > 0.5, u, u * torch.inf * 0),
    "cancelling": lambda x, u, g: (1 + 1e-9 * u) - 1,
    "constant": lambda x, u, g: torch.ones((), dtype=F64),
    "kinks": lambda x, u, g: (u - 0.3).abs() + (g[..., 0] > 0.5) * u,
}


def spaces() -> dict[str, FunctionSpace]:
    triangles = unit_square(4, cell="triangle")
    return {
        "grid": FunctionSpace(unit_square(4), Lagrange(1)),
        "one cell": FunctionSpace(unit_square(1), Lagrange(1)),
        "triangles": FunctionSpace(Mesh(triangles.nodes, triangles.cells), Lagrange(2)),
    }


@pytest.fixture(params=["grid loop", "cells"])
def path(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "grid loop":
        monkeypatch.setattr("fem.forms.traced.loops.GRID_CELLS", 1)
    return request.param


def state(V: FunctionSpace, *batch: int) -> torch.Tensor:
    return torch.rand(*batch, *V.shape, dtype=F64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NOT_POINTWISE)
def test_what_mixes_points_is_refused(name: str, path: str) -> None:
    for kind in ("grid", "triangles"):
        V = spaces()[kind]
        for u in (torch.zeros(V.shape, dtype=F64), state(V, 3)):
            with pytest.raises(ValueError, match=r"the density is no expression at a point.*sum\(-1\)"):
                Energy(V, NOT_POINTWISE[name])(u)
        energy = Energy(V, NOT_POINTWISE[name])
        for _ in range(3):  # every time
            with pytest.raises(ValueError, match="no expression at a point"):
                energy.residual(state(V))


@pytest.mark.parametrize("name", ["sum", "mean", "norm", "max", "ndim", "length"])
def test_points_of_one_cell(name: str, path: str) -> None:
    V = spaces()["one cell"]
    with pytest.raises(ValueError, match="no expression at a point"):
        Energy(V, NOT_POINTWISE[name])(state(V))


@pytest.mark.parametrize("name", LEAVING)
def test_u_does_not_leave_pytorch(name: str, path: str) -> None:
    for V in spaces().values():
        with pytest.raises(ValueError, match="takes u out of PyTorch"):
            Energy(V, LEAVING[name]).residual(state(V))


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_no_false_alarms(name: str, batch: tuple[int, ...], path: str) -> None:
    for V in spaces().values():
        energy, u = Energy(V, RIGHT[name]), state(V, *batch)
        if name != "not finite":
            assert energy(u).isfinite().all()
        energy.residual(u)


def test_boundaries_weak_forms_and_mixed_spaces() -> None:
    V = spaces()["triangles"]
    good = lambda x, u, g: 0.5 * g.square().sum(-1)  # noqa: E731
    wrong = {
        "boundary density on 'boundary'": Energy(V, good, boundary={"boundary": lambda x, u, n: u.square().sum()}),
        "form": WeakForm(V, lambda x, u, g, v, h: (g * h).sum() - v),
        "boundary form on 'boundary'": WeakForm(
            V, lambda x, u, g, v, h: (g * h).sum(-1), boundary={"boundary": lambda x, u, v, n: (u * v).mean()}
        ),
    }
    for name, form in wrong.items():
        with pytest.raises(ValueError, match=f"the {name} is no expression at a point"):
            form.residual(state(V))
    normal = Energy(V, good, boundary={"boundary": lambda x, u, n: u * n.abs().sum()})
    with pytest.raises(ValueError, match="no expression at a point"):
        normal(state(V))
    W = MixedSpace(V, FunctionSpace(V.mesh, Lagrange(1)))
    u = torch.rand(W.shape, dtype=F64)
    assert Energy(W, lambda x, u, g: u[0] * u[1] + g[0].square().sum(-1))(u).isfinite()
    with pytest.raises(ValueError, match="no expression at a point"):
        Energy(W, lambda x, u, g: u[0] * u[1].mean() + g[0].square().sum(-1))(u)


def test_vectors() -> None:
    for cell in ("quadrilateral", "triangle"):
        V = FunctionSpace(unit_square(3, cell=cell), Lagrange(1), components=2)
        u = state(V)
        assert Energy(V, lambda x, u, g: (g + g.mT).square().sum((-2, -1)) - u[..., 0])(u).isfinite()
        with pytest.raises(ValueError, match="no expression at a point"):
            Energy(V, lambda x, u, g: (g + g.mT).square().sum() - u[..., 0])(u)


def test_parameters_of_all_kinds(path: str) -> None:
    """Batches of numbers, vectors, fields and callables raise no alarm; a mean over a parameter's batch does."""
    for V in spaces().values():
        k = V.function(state(V, 3))
        given = (
            torch.rand(3, dtype=F64),
            Constant(torch.rand(3, 2, dtype=F64), (2,)),
            k,
            gradient(k),
            lambda x: x[..., 0],
            2,
        )
        density = lambda x, u, g, a, b, k, s, f, n: a * (b * g).sum(-1) + k * (s * g).sum(-1) + f * u**n  # noqa: E731
        assert Energy(V, density)(state(V, 3), *given).shape == (3,)
        assert Energy(V, density)(state(V), *given).shape == (3,)
        with pytest.raises(ValueError, match="no expression at a point"):
            Energy(V, lambda x, u, g, a: a.mean() * u)(state(V, 3), given[0])


def test_a_density_that_becomes_another_is_asked_again() -> None:
    V, axis = spaces()["triangles"], [(-1,)]
    energy = Energy(V, lambda x, u, g: g.square().sum(axis[0]))
    energy(state(V))
    axis[0] = ()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no expression at a point"):
        sum(energy(state(V)) for _ in range(4))


def test_minimize_says_so() -> None:
    for V in spaces().values():
        with pytest.raises(ValueError, match=r"sum\(-1\)"):
            minimize(Energy(V, lambda x, u, g: 0.5 * g.square().sum() + u.square() - u))


@pytest.mark.parametrize(
    "density",
    [
        lambda x, u, grad_u: 0.5 * grad_u.float().square().sum(-1),
        lambda x, u, grad_u: (0.5 * grad_u.square().sum(-1)).to(torch.float32).double(),
        lambda x, u, grad_u: u.type(torch.float32) ** 2,
    ],
    ids=["float", "there and back", "type"],
)
@pytest.mark.parametrize("n", [4, 64])
def test_casts_to_fewer_digits_are_refused(density, n):
    V = FunctionSpace(unit_square(n), Lagrange(1))
    with pytest.raises(ValueError, match=r"casts u from torch\.float64 to torch\.float32 with .*; leave the cast"):
        Energy(V, density)(V.interpolate(lambda x: x[:, 0]))
