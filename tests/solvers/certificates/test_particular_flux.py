"""The flux is balanced: tested with every function of the space that vanishes where values are prescribed."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
from fem.forms.parameters import CellPoints
from solvers.certificates.particular_flux import particular_flux
from tests.problems import irregular


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "mixed"])
@pytest.mark.parametrize("degree", [1, 2])
def test_loads_and_boundary_fluxes_are_balanced(cell, degree):
    mesh = irregular(cell, 5).with_tags(
        facet_tags={"low": lambda x: x[..., 1] < 1e-9, "side": lambda x: x[..., 0] > 1 - 1e-9}
    )
    V = FunctionSpace(mesh, Lagrange(degree), quadrature_degree=9)
    scale = torch.tensor([1.0, -2.0], dtype=V.dtype)[:, None, None]
    source = lambda x: 1 + (degree - 1) * x[..., 0]  # noqa: E731
    flux = lambda x: x[..., 1] ** degree - 0.3  # noqa: E731
    loads = [scale * source(V.quadrature.geometry(d).points) for d in V.quadrature.domains()]
    traces = [(d, scale * flux(V.quadrature.geometry(d).points), 0.0) for d in V.quadrature.domains("side")]
    prescribed = torch.zeros(len(mesh.facets), dtype=torch.bool)
    prescribed[mesh.facets_tagged("low")] = True
    found = particular_flux(V, loads, traces, prescribed)
    assert float(found.rest.abs().max()) < 1e-10
    held = Dirichlet(V, {"low": 0.0})
    # σ is known at points of cells alone: the boundary term is its own energy.
    inner = Energy(V, lambda x, u, g, sigma, s: (sigma * g).sum(-1) - s * source(x) * u, held)
    outer = Energy(V, lambda x, u, g, s: 0 * u, held, {"side": lambda x, u, normal, s: -s * flux(x) * u})
    u, s = torch.zeros(V.shape, dtype=V.dtype), scale.flatten()
    residual = inner.residual(u, CellPoints(found.values, 1), s) + outer.residual(u, s)
    assert float(residual.abs().max()) < 1e-12


def test_what_is_left_is_measured():
    """Waves shorter than a cell leave h/π ‖f − Πf‖, which is less than h/π ‖f‖ but not by much."""
    V = FunctionSpace(unit_square(4), Lagrange(1), quadrature_degree=9)
    (domain,) = V.quadrature.domains()
    f = torch.sin(50 * V.quadrature.geometry(domain).points[..., 0])
    prescribed = torch.ones(len(V.mesh.facets), dtype=torch.bool)
    rest = particular_flux(V, [f], [], prescribed).rest
    whole = 2**0.5 / 4 / torch.pi * (f.square() * V.quadrature.geometry(domain).weights).sum(-1).sqrt()
    assert bool((rest <= whole).all())
    assert bool((rest > 0.1 * whole).all())


def test_no_way_out():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    (domain,) = V.quadrature.domains()
    closed = torch.zeros(len(V.mesh.facets), dtype=torch.bool)
    assert particular_flux(V, [torch.ones(4, len(domain.weights), dtype=V.dtype)], [], closed) is None
