"""Sums of a few tensors."""

from collections.abc import Iterable

from torch import Tensor


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of a few tensors, without the copy that starting from 0 would cost."""
    total = None
    for term in terms:
        total = term if total is None else total + term
    assert total is not None
    return total
