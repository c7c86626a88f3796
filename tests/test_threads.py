"""Eight threads that share an energy, its space and its mesh get what one thread gets."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


FRESH = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import torch
from fem import *
from nurbs import disk_patches, isogeometric_space
from segmentation import piecewise_constant
from solvers import CG, Multigrid, eigenmodes, minimize
from splines import fit_piecewise

def density(x, u, g, k):
    return 0.5 * k * g.square().sum(-1) + u**4 - (1 + x[..., 0]) * u

def spaces():
    yield FunctionSpace(unit_square(5, cell="triangle"), Lagrange(2)), "boundary", None
    yield FunctionSpace(unit_square(48), Lagrange(1)), "boundary", Multigrid()
    yield FunctionSpace(unit_cube(3), Lagrange(1)), "left", CG()
    yield isogeometric_space(disk_patches(), 2, 2), "outer", None

def works():
    for V, tag, method in spaces():
        energy = Energy(V, density, Dirichlet(V, {tag: 0.0}))
        yield lambda k, energy=energy, method=method: minimize(energy, (k,), method=method).value
        ramp = torch.linspace(0, 1, V.num_dofs, dtype=torch.float64)
        yield lambda k, energy=energy, ramp=ramp: energy(k * ramp, k)
        yield lambda k, V=V, ramp=ramp: integrate(V, V.function(k * ramp))
    V = FunctionSpace(unit_square(5, cell="triangle"), Lagrange(1))
    stiffness = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1), Dirichlet(V, {"left": 0.0}))
    yield lambda k: eigenmodes(stiffness, Energy(V, lambda x, u, g: 0.5 * u**2), 2, params=(k,)).values
    points, ramp = torch.full((3, 2), 0.3, dtype=torch.float64), V.interpolate(lambda x: x.sum(-1))
    yield lambda k: V.evaluate(k * ramp, points)
    image = torch.linspace(0, 9, 256, dtype=torch.float64).sin().reshape(1, 1, 16, 16)
    yield lambda k: piecewise_constant(k * image, 0.4)
    yield lambda k: fit_piecewise(k * image.flatten(), 4).values

def value_and_slope(work, i, wait=lambda: None):
    k = torch.tensor(1 + 0.1 * i, dtype=torch.float64, requires_grad=True)
    wait()
    value = work(k)
    return value.detach(), torch.autograd.grad(value.sum(), k)[0]

sys.setswitchinterval(1e-5)
start = threading.Barrier(8)
with compilation(sys.argv[1]), ThreadPoolExecutor(8) as pool:
    for number, (shared, alone) in enumerate(zip(works(), works(), strict=True)):
        together = list(pool.map(lambda i: value_and_slope(shared, i, start.wait), range(8)))
        for i, found in enumerate(together):
            expected = value_and_slope(alone, i)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=f"work {number}, thread {i}")
"""


@pytest.mark.parametrize("when", [pytest.param("auto", marks=pytest.mark.slow), "always"])
def test_what_eight_threads_make_first_is_what_one_makes(when, tmp_path):
    """In a fresh process: tables, topologies, programs and libraries are all made while eight threads ask for them."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH, when],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"RITZ_CACHE": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
