"""Eight threads that share an energy, its space and its mesh get what one thread gets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, integrate, unit_square, write_vtk
from segmentation import piecewise_constant
from solvers import certify, minimize
from splines import fit_piecewise


@pytest.mark.parametrize(("cell", "n"), [("triangle", 6), ("quadrilateral", 48)])
def test_one_energy_serves_several_threads(cell, n, tmp_path):
    """Everything that is kept lazily is made while all of them ask for it."""

    def setting():
        V = FunctionSpace(unit_square(n, cell=cell), Lagrange(1))
        return V, Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) + u**4 - u, Dirichlet(V, {"boundary": 0.0}))

    def work(V, energy, quadratic, i):
        k = torch.tensor(1.0 + i, dtype=torch.float64, requires_grad=True)
        u = minimize(energy, (k,)).value
        u.sum().backward()
        points = torch.tensor([[0.1 + 0.1 * i, 0.5]], dtype=torch.float64)
        value = u.detach()
        v = torch.linspace(0, 1 + i, V.num_dofs, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(energy(v, k.detach()), v)
        write_vtk(tmp_path / f"{cell}{i}.vtu", V, {"u": value})
        image = v.detach().sin().reshape(1, 1, 1, -1)
        assert k.grad is not None
        return [
            value,
            k.grad,
            slope,
            V.evaluate(value, points),
            integrate(V, V.function(value)),
            certify(quadratic, value, (1.0 + i,)).energy_error,
            fit_piecewise(v.detach().sin(), pieces=3).values,
            piecewise_constant(image, 0.4),
        ]

    def both(V, energy):
        return V, energy, Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u, energy.constraint)

    alone = [work(*both(*setting()), i) for i in range(8)]
    files = [(tmp_path / f"{cell}{i}.vtu").read_bytes() for i in range(8)]
    for _ in range(3):
        shared = both(*setting())
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda i: work(*shared, i), range(8)))  # noqa: B023
        for expected, found in zip(alone, together, strict=True):
            for a, b in zip(expected, found, strict=True):
                torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11)
        assert [len((tmp_path / f"{cell}{i}.vtu").read_bytes()) for i in range(8)] == [len(f) for f in files]
