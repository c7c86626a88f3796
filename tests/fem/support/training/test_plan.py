"""Plans are checked when they are made; their step length rises and falls."""

from itertools import pairwise
from typing import Any

import pytest

from fem.support.training.plan import Plan


def plan(**given: Any) -> Plan:
    usual = {"steps": 100, "batch": 4, "lr": 0.1, "held_out": None, "every": 10, "folder": None, "resume": True}
    usual |= {"clip": 1.0, "precision": "32-true", "devices": 1, "optimizer": None, "progress": False, "trainer": None}
    return Plan("train", **{**usual, **given})


def test_the_step_length_rises_in_a_line_and_falls_to_zero() -> None:
    rates = [plan().rate(step, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 9
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[55] == pytest.approx(1 - rates[45])
    assert rates[100] == 0


@pytest.mark.parametrize("name", ["steps", "batch", "every", "devices", "lr", "clip"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"`train\({name}=...\)` must be a (positive integer|non-negative number); got -2"
    ):
        plan(**{name: -2})


def test_runs_are_the_same_if_what_shapes_them_is() -> None:
    assert plan().facts() == plan(folder="elsewhere", progress=True, devices=2).facts()
    for name in ("steps", "batch", "lr", "every", "clip"):
        assert plan(**{name: 2}).facts() != plan().facts()
