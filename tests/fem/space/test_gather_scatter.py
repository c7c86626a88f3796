"""Sums over cells: by lists of terms or by scattering the same, and the transpose of gathering, to any order."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem import Energy, FunctionSpace, Lagrange
from fem.forms.assembly import pattern_of
from fem.space.gather_scatter import GatherScatter, Segments
from tests.problems import scrambled, small_mesh

BATCHES = [(), (2,), (2, 3)]


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums by lists of terms, as on a GPU."""
    for module in ("fem.space.gather_scatter", "fem.forms.assembly"):
        monkeypatch.setattr(f"{module}.sums_by_segments", lambda device: True)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made_for(by_segments: bool) -> GatherScatter:
    """Ten cells with three of eight dofs each; the last dof belongs to no cell."""
    dofs = torch.randint(7, (10, 3), generator=torch.Generator().manual_seed(0))
    made = GatherScatter(dofs, 8)
    made.by_segments = by_segments
    return made


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("components", [1, 3])
def test_both_ways_to_sum_agree(batch: tuple, components: int) -> None:
    values = random(*batch, 10, 3, components)
    lists, scattered = (made_for(kind).sum(values) for kind in (True, False))
    assert lists.shape == (*batch, 8, components)
    torch.testing.assert_close(lists, scattered, rtol=1e-14, atol=1e-15)
    assert (lists[..., 7, :] == 0).all()


@pytest.mark.parametrize("by_segments", [True, False])
@pytest.mark.parametrize("batch", BATCHES)
def test_summing_is_the_transpose_of_gathering(batch: tuple, by_segments: bool) -> None:
    cells, u, f = made_for(by_segments), random(*batch, 8, 2), random(*batch, 10, 3, 2, seed=1)
    assert torch.equal(cells.gather(u), u[..., cells.dofs, :])
    torch.testing.assert_close((cells.gather(u) * f).sum(), (u * cells.sum(f)).sum())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("by_segments", [True, False])
def test_derivatives_of_second_order(by_segments: bool) -> None:
    cells = made_for(by_segments)
    for function, x in ((cells.gather, random(2, 8, 2)), (cells.sum, random(2, 10, 3, 2))):
        x.requires_grad_()
        assert gradcheck(lambda x, f=function: f(x**3), x, check_forward_ad=True)
        assert gradgradcheck(lambda x, f=function: f(x**3), x)


def test_functional_transforms_go_through() -> None:
    cells, u = made_for(True), random(4, 8, 1)
    energy = lambda u: cells.sum(cells.gather(u) ** 2).pow(2).sum()  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(energy))(u), torch.func.grad(energy)(u))
    torch.testing.assert_close(torch.func.vmap(cells.sum, in_dims=1)(random(10, 4, 3, 1)).shape, (4, 8, 1))


def test_terms_are_added_in_their_order() -> None:
    """1 + 2⁶⁰ − 2⁶⁰ is 0 in this order and 1 in another: sums run from the first term to the last."""
    numbers = torch.tensor([1, 0, 1, 0, 1])
    values = torch.tensor([1.0, 3.0, 2.0**60, 4.0, -(2.0**60)], dtype=torch.float64)[:, None]
    assert Segments(numbers, 3).sum(values).flatten().tolist() == [7.0, 0.0, 0.0]


@pytest.mark.parametrize("cell", ["triangle", "hexahedron"])
@pytest.mark.parametrize("components", [None, 2])
def test_energies_by_lists_are_energies(cell: str, components: int | None, lists: None, deterministic: None) -> None:
    """Residual, Hessian product, matrix and derivatives in the nodes, with nothing that PyTorch calls repeatable by
    chance alone."""
    found = []
    for by_segments in (True, False):
        mesh = scrambled(small_mesh(cell))
        nodes = mesh.nodes.clone().requires_grad_()
        V = FunctionSpace(mesh.with_nodes(nodes), Lagrange(2), components)
        for domain in V.quadrature.domains():
            V.quadrature.cells(domain).by_segments = by_segments
        rank = -1 if components is None else (-2, -1)
        energy = Energy(V, lambda x, u, g, rank=rank: (1 + x[..., 0]) * g.square().sum(rank) ** 2)
        u = random(*V.shape).requires_grad_()
        value = energy(u)
        (gradient,) = torch.autograd.grad(value, u, create_graph=True)
        mixed = torch.autograd.grad((gradient * random(*V.shape, seed=1)).sum(), (u, nodes))
        with torch.no_grad():
            matrix = energy.hessian(u).values()
        found.append([value, gradient, energy.residual(u), energy.hessian_product(u, u), *mixed, matrix])
        assert torch.equal(energy.residual(u), found[-1][2])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("portion", [1, 2**22])
def test_matrices_by_lists(portion: int, lists: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one portion or cell by cell, with boundary terms and batches; the lists are made once."""
    monkeypatch.setattr("fem.support.portions.MEMORY", 32 * portion)
    V = FunctionSpace(scrambled(small_mesh("quadrilateral")), Lagrange(2))
    energy = Energy(
        V, lambda x, u, g: g.square().sum(-1) ** 2 + u**3, boundary={"left": lambda x, u, normal: x[..., 1] * u**4}
    )
    u = random(2, *V.shape)
    matrix = energy.hessian(u)
    kept = dict(pattern_of(V)._segments)
    assert len(kept) >= 2
    assert torch.equal(energy.hessian(u).values(), matrix.values())
    energy.hessian(u[0])
    assert pattern_of(V)._segments == kept
    monkeypatch.undo()
    W = FunctionSpace(V.mesh, Lagrange(2))
    plain = Energy(W, energy.terms[0].density, boundary={"left": energy.terms[1].density}).hessian(u)
    torch.testing.assert_close(matrix.values(), plain.values(), rtol=1e-12, atol=1e-13)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_sums_on_a_gpu_are_repeatable_bit_by_bit() -> None:
    V = FunctionSpace(scrambled(small_mesh("tetrahedron", 8)), Lagrange(2)).to("cuda")
    energy, u = Energy(V, lambda x, u, g: g.square().sum(-1) ** 2 + u**4), random(4, *V.shape).cuda()
    assert all(V.quadrature.cells(domain).by_segments for domain in V.quadrature.domains())
    first = energy.residual(u)
    assert all(torch.equal(energy.residual(u), first) for _ in range(10))
    torch.testing.assert_close(first.cpu(), Energy(V.to("cpu"), energy.terms[0].density).residual(u.cpu()))
