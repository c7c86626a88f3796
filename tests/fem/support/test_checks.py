"""Checks accept Python's and NumPy's values; of anything else they say the call, what it expects and what it got."""

import re

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from fem import Lagrange
from fem.support.checks import (
    check_choice,
    check_flags,
    check_floating,
    check_integers,
    check_kind,
    check_numbers,
    check_params,
    did_you_mean,
    shown,
)

NAN = float("nan")


@pytest.mark.parametrize("value", [1, 50, np.int64(3), np.uint8(1), torch.tensor(2)])
def test_integers(value) -> None:
    check_integers("Newton", max_iterations=value)


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, True, np.bool_(True), np.float64(2), "3", None, (1,), NAN, int])
def test_what_is_no_positive_integer(value) -> None:
    message = f"`Newton(max_iterations=...)` must be a positive integer; got {shown(value)}."
    with pytest.raises(ValueError, match=re.escape(message)):
        check_integers("Newton", max_iterations=value)


def test_least_values_and_none() -> None:
    check_integers("f", 0, a=0)
    check_integers("f", None, a=-3)
    check_integers("f", optional=True, a=None)
    for least, value, wanted in (
        (0, -1, "a non-negative integer"),
        (2, 1, "an integer of at least 2"),
        (None, 0.5, "an integer"),
    ):
        with pytest.raises(ValueError, match=rf"`f\(a=\.\.\.\)` must be {wanted}; got {value}\."):
            check_integers("f", least, a=value)
    with pytest.raises(ValueError, match=r"`f\(b=\.\.\.\)` must be None or a positive integer; got 0\."):
        check_integers("f", optional=True, a=1, b=0)


@pytest.mark.parametrize(
    ("kind", "good", "bad", "wanted"),
    [
        ("finite", (-1, 0.5, np.float32(2)), (), "a finite number"),
        ("positive", (1e-3, np.int64(2)), (0, -1.0), "a positive number"),
        ("non-negative", (0, 3.5), (-1e-9,), "a non-negative number"),
        ("a fraction", (0.5,), (0, 1), "a number between 0 and 1"),
        ("a share", (0, 0.5, 1), (1.1, -0.1), "a number from 0 to 1"),
        ("a tolerance", (0, 1e-12), (1, -1e-3), "a number of at least 0 and less than 1"),
    ],
)
def test_numbers(kind: str, good: tuple, bad: tuple, wanted: str) -> None:
    for value in good:
        check_numbers("Adam", kind, lr=value)
    for value in (*bad, NAN, float("inf"), True, "1", None, 1j, torch.tensor(0.5)):
        with pytest.raises(ValueError, match=re.escape(f"`Adam(lr=...)` must be {wanted}; got {shown(value)}.")):
            check_numbers("Adam", kind, lr=value)
    check_numbers("Adam", kind, optional=True, lr=None)


def test_words_and_flags() -> None:
    check_choice("Direct", "backend", None, ("superlu", "pardiso", None))
    with pytest.raises(ValueError, match=r'"superlu", "pardiso" or None; got \'pardizo\'\. Did you mean \'pardiso\'\?'):
        check_choice("Direct", "backend", "pardizo", ("superlu", "pardiso", None))
    for value in (True, 1.0, "1"):
        with pytest.raises(ValueError, match="must be 1 or 2"):
            check_choice("GaussianField", "dim", value, (1, 2))
    check_flags("UNet", coordinates=False)
    with pytest.raises(ValueError, match=r"`UNet\(coordinates=\.\.\.\)` must be True or False; got 'yes'\."):
        check_flags("UNet", coordinates="yes")


def test_a_class_is_none_of_its_objects() -> None:
    check_kind("f", "element", Lagrange(1), Lagrange, "an element")
    with pytest.raises(TypeError, match=r"must be an element; got the class `Lagrange`, not an object: write `Lag"):
        check_kind("f", "element", Lagrange, Lagrange, "an element")
    with pytest.raises(TypeError, match=r"must be a type; got the class `int`"):
        check_kind("f", "kind", int, type, "a type")


def test_floating_point_types() -> None:
    check_floating("box", torch.float32)
    for dtype in (torch.int64, "float32", torch.complex64, None):
        with pytest.raises(TypeError, match=r"`box\(dtype=\.\.\.\)` must be a floating-point type"):
            check_floating("box", dtype)


def test_parameters_are_a_tuple() -> None:
    assert check_params("minimize", [1.0, "x"]) == (1.0, "x")
    for value, remedy in (
        (2.0, r"got 2\.0: a single parameter is written `params=\(2\.0,\)`"),
        (torch.ones(3), r"got a tensor of shape \(3,\): a single parameter is written `params=\(\.\.\.,\)`"),
        ({"k": 1.0}, "parameters have no names; give their values in the order"),
    ):
        with pytest.raises(TypeError, match=rf"`minimize\(params=\.\.\.\)` must be a tuple of parameters; .*{remedy}"):
            check_params("minimize", value)


def test_misspelt_words() -> None:
    assert did_you_mean("Boundry", ("boundary", "left")) == " Did you mean 'boundary'?"
    assert did_you_mean("roof", ("boundary", "left")) == ""
    assert did_you_mean(3, ("boundary", 3)) == ""


def test_values_are_shown_short() -> None:
    assert shown(np.zeros((25, 2))) == "a NumPy array of shape (25, 2) (`torch.as_tensor` makes a tensor of it)"
    assert shown([0] * 100) == "an object of class `list`"
    assert shown(torch.tensor(1.5)) == "a tensor of value 1.5"
    assert shown(test_misspelt_words) == "the function `test_misspelt_words`"
    assert shown(Lagrange(2)) == "Lagrange(degree=2)"
    assert len(shown(Float[Tensor, "n"])) < 120
