"""The flux is balanced: tested with every function of the space that vanishes where values are prescribed."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, unit_square
from fem.parameters import CellPoints
from solvers.particular_flux import particular_flux


def distorted(cell):
    """An irregular mesh over the unit square: triangles, quadrilaterals or both."""
    mesh = unit_square(5, cell="quadrilateral" if cell == "mixed" else cell)
    x = mesh.nodes
    inside = ((x > 0) & (x < 1)).all(1, keepdim=True)
    x = x + 0.05 * inside * torch.sin(torch.arange(x.numel(), dtype=x.dtype) ** 2).reshape(x.shape)
    if cell != "mixed":
        return Mesh(x, mesh.cells, cell=cell)
    split = mesh.cells[:12]
    triangles = torch.cat([split[:, [0, 1, 2]], split[:, [0, 2, 3]]])
    return Mesh(x, {"triangle": triangles, "quadrilateral": mesh.cells[12:]})


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "mixed"])
@pytest.mark.parametrize("degree", [1, 2])
def test_loads_and_boundary_fluxes_are_balanced(cell, degree):
    mesh = distorted(cell).with_tags(
        facet_tags={"low": lambda x: x[..., 1] < 1e-9, "side": lambda x: x[..., 0] > 1 - 1e-9}
    )
    V = FunctionSpace(mesh, Lagrange(degree), quadrature_degree=9)
    scale = torch.tensor([1.0, -2.0], dtype=V.dtype)[:, None, None]
    source = lambda x: 1 + (degree - 1) * x[..., 0]  # noqa: E731
    flux = lambda x: x[..., 1] ** degree - 0.3  # noqa: E731
    loads = [scale * source(V.geometry(d).points) for d in V.domains()]
    traces = [(d, scale * flux(V.geometry(d).points)) for d in V.domains("side")]
    prescribed = torch.zeros(len(mesh.facets), dtype=torch.bool)
    prescribed[mesh.facets_tagged("low")] = True
    found = particular_flux(V, loads, traces, prescribed)
    assert float(found.rest.abs().max()) < 1e-10
    balance = Energy(
        V,
        lambda x, u, g, sigma, s: (sigma * g).sum(-1) - s * source(x) * u,
        Dirichlet(V, {"low": 0.0}),
        {"side": lambda x, u, normal, sigma, s: -s * flux(x) * u},
    )
    # σ is known at points of cells alone: the boundary term is its own energy.
    inner = Energy(V, balance.terms[0].density, balance.constraint)
    outer = Energy(V, lambda x, u, g, s: 0 * u, balance.constraint, {"side": lambda x, u, n, s: -s * flux(x) * u})
    u, s = torch.zeros(V.shape, dtype=V.dtype), scale.flatten()
    residual = inner.residual(u, CellPoints(found.values, 1), s) + outer.residual(u, s)
    assert float(residual.abs().max()) < 1e-12


def test_what_is_left_is_measured():
    """A load of ±1 on alternate cells of a fine pattern leaves h/π ‖f − Πf‖, which falls short of h/π ‖f‖."""
    V = FunctionSpace(unit_square(4), Lagrange(1), quadrature_degree=9)
    (domain,) = V.domains()
    f = torch.sin(50 * V.geometry(domain).points[..., 0])
    prescribed = torch.ones(len(V.mesh.facets), dtype=torch.bool)
    rest = particular_flux(V, [f], [], prescribed).rest
    whole = 2**0.5 / 4 / torch.pi * (f.square() * V.geometry(domain).weights).sum(-1).sqrt()
    assert bool((rest <= whole).all())
    assert bool((rest > 0.1 * whole).all())


def test_no_way_out():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    (domain,) = V.domains()
    closed = torch.zeros(len(V.mesh.facets), dtype=torch.bool)
    assert particular_flux(V, [torch.ones(4, len(domain.weights), dtype=V.dtype)], [], closed) is None
