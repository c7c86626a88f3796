"""Annotations are executed, whichever way they are checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from fem import unit_interval
from fem.reference.bspline import uniform_knots
from tests.typechecker import checked


@checked
def dot(a: Float[Tensor, "*b n"], b: Float[Tensor, "*b n"], scale: float = 1.0) -> Float[Tensor, "*b"]:
    return scale * (a * b).sum(-1)


@checked
def padded(a: Float[Tensor, "n"], by: int) -> Float[Tensor, "{by}+n"]:
    return torch.cat([a, a.new_zeros(by)])


@checked
@dataclass(frozen=True)
class Pair:
    a: Float[Tensor, "n"]
    b: Float[Tensor, "n"] | None = None


def test_what_agrees_passes():
    assert dot(torch.ones(2, 3), b=torch.ones(2, 3), scale=2).tolist() == [6.0, 6.0]  # an `int` is a `float`
    assert padded(torch.ones(2), 1).shape == (3,)
    assert Pair(torch.ones(2), torch.ones(2)).b is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda: dot(torch.ones(2, 3), torch.ones(2, 4)),
        lambda: dot(torch.ones(2, 3), torch.ones(1, 3)),
        lambda: dot(torch.ones(3), torch.ones(3, dtype=torch.int64)),
        lambda: dot(torch.ones(3), torch.ones(3), "1"),  # type: ignore[arg-type]
        lambda: Pair(torch.ones(2), torch.ones(3)),
        lambda: padded(torch.ones(2), 1.0),  # type: ignore[arg-type]
        lambda: uniform_knots(4, "2"),  # type: ignore[arg-type]
        lambda: unit_interval("4"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_do_not_are_refused(call):
    with pytest.raises(TypeCheckError):
        call()


def test_results_are_checked_in_the_sizes_of_the_arguments():
    @checked
    def longer(a: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        return torch.cat([a, a])

    @checked
    def by_name(a: Float[Tensor, "n"], count: int) -> Float[Tensor, "{count}"]:
        return a

    @checked
    def plain(a: int) -> str:
        return a  # type: ignore[return-value]

    for call in (lambda: longer(torch.ones(2)), lambda: by_name(torch.ones(2), 3), lambda: plain(1)):
        with pytest.raises(TypeCheckError):
            call()


def test_every_call_has_sizes_of_its_own():
    @checked
    def outer(a: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        inner(torch.ones(5))
        return a

    @checked
    def inner(a: Float[Tensor, "n"]) -> None:
        pass

    @checked
    def parts(a: Float[Tensor, "n m"]) -> Iterator[Any]:
        for row in a:
            inner(row)
            yield row

    assert len(list(parts(outer(torch.ones(3)).expand(2, 3)))) == 2
    with pytest.raises(TypeCheckError):
        parts(torch.ones(3))  # arguments of generators are checked at the call


def test_what_no_name_stands_for_yet_is_not_checked():
    @checked
    def later(a: "NotYetThere", b: Float[Tensor, "n"]) -> "Float[Tensor, 'n']":  # type: ignore[name-defined]
        return b[:a]

    assert len(later(2, torch.ones(2))) == 2
    with pytest.raises(TypeCheckError):
        later(1, torch.ones(2))
