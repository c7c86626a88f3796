"""dtype and device follow the mesh, through a whole solve and its adjoint; on a GPU no field ever visits the host."""

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, WeakForm, box, l2_error, unit_cube, unit_square
from solvers import CG, minimize
from tests.problems import diffusion

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]


@pytest.fixture
def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make any copy of a GPU tensor of more than one number to the host fail."""
    for name in ("cpu", "numpy", "tolist"):
        original = getattr(Tensor, name)

        def guarded(self: Tensor, *args, _original=original, _name=name, **kwargs):
            assert not self.is_cuda or self.numel() < 32, f"{_name} of a GPU tensor of shape {tuple(self.shape)}"
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, guarded)


def waves(x, u, grad_u, nu):
    return diffusion(x, u, grad_u, nu) - torch.sin(3 * x[..., 0]) * u


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "mesh", [lambda **k: unit_square(6, 5, **k), lambda **k: unit_cube(2, 2, 2, "tetrahedron", **k)]
)
def test_solution_and_gradient_stay_where_the_mesh_is(stay, mesh, device: str, dtype: torch.dtype) -> None:
    V = FunctionSpace(mesh(dtype=dtype, device=device), Lagrange(2))
    nu = (1 + V.dof_coordinates[:, 0] * torch.arange(1, 4, dtype=dtype, device=device)[:, None]).requires_grad_()
    energy = Energy(V, waves, Dirichlet(V, {"left": 0.0, "right": lambda x: x[..., 1]}))
    solution = minimize(energy, (V.function(nu),), method=CG())
    solution.value.square().sum().backward()
    assert solution.converged
    assert isinstance(nu.grad, Tensor)
    for t in (solution.value, solution.energy, solution.residual, nu.grad, l2_error(V, solution.value, 0.0)):
        assert t.dtype == dtype
        assert t.device.type == device
    assert solution.value.shape == (3, V.num_dofs)
    hessian = energy.hessian(solution.value[0].detach(), V.function(nu[0].detach()))
    assert (hessian.dtype, hessian.device.type) == (dtype, device)


@pytest.mark.parametrize("device", DEVICES)
def test_moving_a_space_moves_everything_it_holds(device: str) -> None:
    V = FunctionSpace(unit_square(3, 3), Lagrange(3), components=2).to(device, torch.float32)
    u = V.interpolate(lambda x: x.sin())
    form = WeakForm(V, lambda x, u, grad_u, v, grad_v: (grad_u * grad_v).sum((-1, -2)) + (u * v).sum(-1), MeanZero(V))
    r = form.residual(u)
    assert (r.dtype, r.device.type, r.shape) == (torch.float32, device, u.shape)
    assert (V.mesh.nodes.dtype, V.mesh.nodes.device.type) == (torch.float32, device)


def test_tags_survive_rounding_to_another_type() -> None:
    mesh = box((0.1, 0.2), (0.3, 0.7), (2, 3)).to(dtype=torch.float32)
    assert [len(mesh.facets_tagged(side)) for side in ("left", "right", "bottom", "top")] == [3, 3, 2, 2]
