"""What a user sets for all of PyTorch (automatic mixed precision, default dtype and device) changes no answer."""

import subprocess
import sys

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, WeakForm, integrate, l2_error, unit_square
from nurbs import Curve, fit_surface
from segmentation import piecewise_constant
from solvers import GaussianField, certify, eigenmodes, minimize, predict, solve
from splines import fit_piecewise

F64 = torch.float64


def density(x, u, grad_u, k):
    return 0.5 * k * grad_u.square().sum(-1) - u


def answers() -> dict[str, torch.Tensor]:
    """One number or tensor of each entry point, from meshes to files of a few cells."""
    found: dict[str, torch.Tensor] = {}
    for cell, n in (("triangle", 4), ("quadrilateral", 48)):
        V = FunctionSpace(unit_square(n, cell=cell), Lagrange(1))
        J = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
        k = torch.tensor(2.0, dtype=F64, device="cpu", requires_grad=True)
        u = minimize(J, (k,)).value
        (slope,) = torch.autograd.grad(J(u.detach(), k), k)
        form = WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) + 3 * g[..., 0] * v - v, J.constraint)
        inside = torch.tensor([[0.3, 0.4], [0.7, 0.1]], dtype=F64, device="cpu")
        found |= {
            f"energy {cell}": J(u.detach(), 2.0),
            f"slope {cell}": slope,
            f"minimize {cell}": u.detach(),
            f"solve {cell}": solve(form).value,
            f"certify {cell}": certify(J, 1.01 * u.detach(), (2.0,)).energy_error,
            f"evaluate {cell}": V.evaluate(u.detach(), inside),
            f"integrate {cell}": integrate(V, V.function(u.detach())),
            f"l2_error {cell}": l2_error(V, u.detach(), lambda x: x[..., 0]),
            f"residual {cell}": J.residual(u.detach(), 3.0),
        }
    small = FunctionSpace(unit_square(6), Lagrange(2))
    stiffness, mass = (
        Energy(small, d, Dirichlet(small, {"boundary": 0.0}))
        for d in (lambda x, u, g: 0.5 * g.square().sum(-1), lambda x, u, g: 0.5 * u.square())
    )
    found["eigenmodes"] = eigenmodes(stiffness, mass, 3).values
    image = torch.linspace(0, 1, 64, dtype=F64, device="cpu").sin().view(1, 1, 8, 8)
    signal = torch.linspace(0, 6, 40, dtype=F64, device="cpu").sin()
    found["piecewise_constant"] = piecewise_constant(image, 0.3)
    found["fit_piecewise"] = fit_piecewise(signal, pieces=4).values
    found["fit_piecewise merge"] = fit_piecewise(signal, pieces=4, method="merge").values
    t = torch.linspace(0, 1, 12, dtype=F64, device="cpu")
    grid = torch.stack([*torch.meshgrid(t, t, indexing="ij"), t[:, None] * t.square()], -1)
    fit = fit_surface(grid, (5, 5))
    found["fit_surface"] = fit.surface.control_points
    found["surface"] = fit.surface(t, t)
    found["curve"] = Curve(grid[0], degree=3)(t)
    found["predict"] = predict(
        lambda x: 0 * x, J, torch.ones(1, 1, 49, 49, dtype=F64, device="cpu"), (2.0,), tol=1e-8
    ).value
    return {name: value.detach() for name, value in found.items()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    """The names of answers that differ by more than round-off."""
    assert found.keys() == expected.keys()
    return [
        name
        for name, value in found.items()
        if value.dtype != expected[name].dtype
        or not torch.allclose(value, expected[name], rtol=1e-7, atol=1e-9 * float(expected[name].abs().max()))
    ]


def test_autocast_changes_nothing():
    expected = answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answers()
    assert same(found, expected) == []


def test_gradients_after_a_forward_pass_in_autocast_are_those_without_it():
    """In single precision, values and derivatives, of backward passes that are called outside, as PyTorch advises."""
    V = FunctionSpace(unit_square(5, cell="triangle", dtype=torch.float32), Lagrange(1))
    energy = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) + u**4 - u, Dirichlet(V, {"boundary": 0.0}))
    u, x, family = torch.linspace(0, 1, V.num_dofs), torch.rand(5, 2), GaussianField(2, modes=3)
    image, omega = torch.linspace(0, 6, 64).sin().reshape(1, 1, 8, 8), family.sample(2, like=x)
    functions = {
        "energy": lambda k: energy(k * u, k),
        "residual": lambda k: energy.residual(k * u, k),
        "minimize": lambda k: minimize(energy, (k,)).value,
        "evaluate": lambda k: V.evaluate(k * u, x),
        "error": lambda k: l2_error(V, k * u, lambda x: k * x[..., 0]),
        "layer": lambda k: piecewise_constant(k * image, 0.4),
        "fit": lambda k: fit_piecewise(k * image.flatten(), 3).values,
        "family": lambda k: family(k * omega, x),
    }
    for name, f in functions.items():
        found = []
        for enabled in (True, False):
            k = torch.tensor(1.5, requires_grad=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                value = f(k)
            (slope,) = torch.autograd.grad(value.square().sum(), k)
            found.append((value.detach(), slope))
        torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7, msg=name)


SCRIPT = """
import sys, torch
{setting}
sys.path.insert(0, "tests")
from test_defaults import answers
torch.save(answers(), sys.argv[1])
"""


@pytest.mark.parametrize(
    "setting",
    [
        "torch.set_default_dtype(torch.float16)",
        "torch.set_default_dtype(torch.float64)",
        'torch.set_default_device("meta")',
    ],
)
def test_default_dtypes_and_devices_change_nothing(setting, tmp_path):
    """In a process of its own, where they hold before anything is imported or kept."""
    path = tmp_path / "answers.pt"
    script = SCRIPT.format(setting=setting)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(torch.load(path), answers()) == []
