"""The contract of a basis, on every element of the project: the checks and the table are in `tests/conformance.py`."""

import pytest
import torch

from fem.reference.element import Element, ElementFamily, Tabulation
from fem.reference.lagrange import Lagrange
from tests.conformance import CHECKS, ELEMENTS, Row


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("row", ELEMENTS, ids=lambda row: row.name)
def test_element_conforms(row: Row, check) -> None:
    check(row)


@pytest.mark.parametrize("row", ELEMENTS, ids=lambda row: row.name)
def test_elements_and_families_are_what_a_space_expects(row: Row) -> None:
    assert isinstance(row.element, Element)
    assert isinstance(Lagrange(2), ElementFamily)


def test_derivatives_not_asked_for_are_none() -> None:
    table = Tabulation(torch.ones(1, 2, 3))
    assert table.grad is None
    assert table.hess is None
