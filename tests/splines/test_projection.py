"""Projection onto given pieces: the dense projector, its transpose, weights, stretches."""

import pytest
import torch

from splines.pieces import Pieces
from splines.projection import project
from tests.splines.reference import projector

BREAKS = torch.tensor([[0, 4, 11, 19], [0, 7, 19, 19]])


@pytest.mark.parametrize("degrees", [(0, 0, 0), (2, 2, 2), (3, 0, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_dense_projector(degrees: tuple[int, ...], weighted: bool) -> None:
    w = torch.rand(2, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1 if weighted else None
    split = Pieces(BREAKS, degrees, 19, w)
    for item in range(2):
        expected = torch.zeros(19, 19, dtype=torch.float64)
        for j, (a, b) in enumerate(zip(BREAKS[item, :-1].tolist(), BREAKS[item, 1:].tolist(), strict=True)):
            if b > a:
                expected[a:b, a:b] = projector(b - a, degrees[j], None if w is None else w[item, a:b])

        def values(x: torch.Tensor, item: int = item) -> torch.Tensor:
            return project(torch.stack([x, x])[..., None], split)[0][item, :, 0]

        J = torch.autograd.functional.jacobian(values, torch.randn(19, dtype=torch.float64))
        assert (J - expected).abs().max() < 1e-12
        assert (J.sum(1) - 1).abs().max() < 1e-12
        if w is None:
            assert (J - J.T).abs().max() < 1e-14


def test_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 19, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    split = Pieces(BREAKS, (2, 2, 2), 19, None)
    one = project(x, split)
    (g,) = torch.autograd.grad(one[0].pow(3).sum() + one[1].sin().sum(), x)
    monkeypatch.setattr("fem.support.portions.CACHE", 80)
    other = project(x, split)
    (h,) = torch.autograd.grad(other[0].pow(3).sum() + other[1].sin().sum(), x)
    assert all((a - b).abs().max() < 1e-13 for a, b in zip((*one, g), (*other, h), strict=True))


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(weighted: bool) -> None:
    w = torch.rand(2, 19, dtype=torch.float64) + 0.1 if weighted else None
    split = Pieces(BREAKS, (1, 2, 0), 19, w)
    x = torch.randn(2, 19, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: project(x, split), x)
    assert torch.autograd.gradgradcheck(lambda x: tuple(t.square() for t in project(x, split)), x, fast_mode=True)
