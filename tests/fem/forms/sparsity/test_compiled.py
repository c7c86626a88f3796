"""Sparsity patterns: those of C code are SciPy's, entry by entry."""

import pytest
import torch
from torch import Tensor

from fem import compilation
from fem.forms.assembly import pattern_by_rows
from fem.forms.sparsity.compiled import compiled_pattern
from fem.support.native import find_compiler


def dofs_of(cells: int, width: int, count: int, seed: int) -> Tensor:
    """Dofs of some cells at random; one of them twice in the first cell, as on facets with two sides."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.stack([torch.randperm(count, generator=generator)[:width] for _ in range(cells)])
    found[0, 1] = found[0, 0]
    return found


@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
def test_patterns_are_those_of_scipy() -> None:
    blocks = [dofs_of(20, 4, 30, 0), dofs_of(9, 7, 30, 2)]  # dof 30 belongs to no cell
    for chosen in (blocks[:1], blocks):
        with compilation("always"):
            found = compiled_pattern(chosen, 31)
        wanted = pattern_by_rows([b.numpy() for b in chosen], 31)
        assert found is not None
        crow, column, positions = found
        assert torch.equal(crow, wanted.crow)
        assert torch.equal(column, wanted.column)
        assert all(torch.equal(p, wanted.positions[k]) for k, p in enumerate(positions))
    with compilation("never"):
        assert compiled_pattern(blocks[:1], 31) is None
