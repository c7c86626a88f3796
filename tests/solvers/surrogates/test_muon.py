"""Steps of matrices have equal length in every direction; everything else moves as AdamW moves it."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from solvers import Muon
from solvers.surrogates.muon import orthogonalised


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 4, 9), (2, 9, 4)])
def test_singular_values_become_about_one_and_vectors_stay(shape):
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(m, full_matrices=False)
    found = u.mT @ orthogonalised(m) @ v.mT
    diagonal = found.diagonal(dim1=-2, dim2=-1)
    assert 0.5 < float(diagonal.min()) < float(diagonal.max()) < 1.3
    assert float((found - torch.diag_embed(diagonal)).abs().max()) < 1e-12
    assert float(orthogonalised(torch.zeros(1, 3, 4)).abs().max()) == 0


@pytest.mark.parametrize(("shape", "dtype"), [((7,), torch.float32), ((3, 4), torch.complex64)])
def test_what_is_no_real_matrix_follows_adamw(shape, dtype):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape, dtype=dtype), torch.randn(5, *shape, dtype=dtype)
    own, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    muon = Muon([("bias", own)], adam_lr=0.1, weight_decay=0.2)
    adam = torch.optim.AdamW([other], lr=0.1, weight_decay=0.2)
    for g in gradients:
        own.grad, other.grad = g.clone(), g.clone()
        muon.step()
        adam.step()
    torch.testing.assert_close(own.detach(), other.detach())


@pytest.mark.parametrize("layer", [nn.Linear(6, 3), nn.Conv2d(3, 8, 3), nn.Conv3d(2, 4, 3)])
def test_a_step_is_a_scaled_orthogonal_matrix(layer):
    before = layer.weight.detach().clone()
    optimiser = Muon(layer.named_parameters(), lr=0.1)
    layer.weight.grad = torch.randn_like(layer.weight)
    optimiser.step()  # biases have no gradient yet and stay
    step = (layer.weight.detach() - before).flatten(1) / 0.1
    values = torch.linalg.svdvals(step) / max(1, step.shape[0] / step.shape[1]) ** 0.5
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3


def test_a_stored_optimiser_goes_on_as_if_nothing_had_happened():
    torch.manual_seed(0)
    a = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Conv2d(4, 1, 1))
    image = torch.randn(2, 1, 8, 8)

    def steps(network, optimiser, count):
        for _ in range(count):
            optimiser.zero_grad()
            network(image).square().mean().backward()
            optimiser.step()

    first = Muon(a.named_parameters())
    steps(a, first, 3)
    b = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Conv2d(4, 1, 1))
    b.load_state_dict(a.state_dict())
    second = Muon(b.named_parameters())
    second.load_state_dict(deepcopy(first.state_dict()))
    steps(a, first, 3)
    steps(b, second, 3)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_it_minimises():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)), torch.rand(64, 2)
    optimiser = Muon(network.named_parameters(), lr=0.05)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, 1000)
    for _ in range(1000):
        loss = (network(x)[:, 0] - torch.sin(3 * x[:, 0]) * x[:, 1]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    assert float(loss.detach()) < 1e-3


def test_rates_are_positive():
    with pytest.raises(ValueError, match=r"`Muon\(lr=\.\.\.\)` must be a positive number; got 0"):
        Muon(nn.Linear(2, 2).named_parameters(), lr=0)
