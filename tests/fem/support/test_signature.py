"""What a density takes is read from its signature: too few and too many parameters are told before it is called."""

from functools import partial

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MixedSpace, WeakForm, unit_square
from fem.support.checks import Signature, signature

V = FunctionSpace(unit_square(2), Lagrange(1))
U = torch.ones(V.shape, dtype=V.dtype)


def plain(x, u, grad_u):
    return u


def weighted(x, u, grad_u, k, f=0.0):
    return k * u - f


def test_signatures() -> None:
    assert signature(plain) == Signature(("x", "u", "grad_u"), 3, 3)
    assert signature(weighted) == Signature(("x", "u", "grad_u", "k", "f"), 4, 5)
    assert signature(partial(weighted, f=2.0)) == Signature(("x", "u", "grad_u", "k"), 4, 4, None)
    assert signature(lambda x, *rest: x) == Signature(("x", "*rest"), 1, float("inf"))
    assert signature(lambda x, *, k: x) == Signature(("x",), 1, 1, "k")
    assert signature(torch.nn.Linear(2, 1)) == Signature(("input",), 1, 1)
    assert signature(max) is None


def test_what_fits_is_called() -> None:
    torch.testing.assert_close(Energy(V, weighted)(U, 1.0), Energy(V, plain)(U))
    torch.testing.assert_close(Energy(V, partial(weighted, f=1.0))(U, 2.0), Energy(V, plain)(U))
    gathered = Energy(V, lambda x, u, g, *params: params[0] * u - params[1])
    torch.testing.assert_close(gathered(U, 3.0, 1.0), Energy(V, weighted)(U, 3.0, 1.0))
    both = Energy(V, weighted, boundary={"left": lambda x, u, normal, *params: u})
    torch.testing.assert_close(both(U, 1.0), 2 * Energy(V, plain)(U))


@pytest.mark.parametrize("call", ["__call__", "residual", "hessian"])
def test_parameters_that_are_missing_or_too_many(call: str) -> None:
    with pytest.raises(
        TypeError,
        match=r"the density takes \(x, u, grad_u, k, f\), but gets x, u, grad_u and no parameters; k is missing\. "
        r"Parameters are passed in order, as in `energy\(u, k\)` or `minimize\(energy, params=\(k,\)\)`",
    ):
        getattr(Energy(V, weighted), call)(U)
    with pytest.raises(
        TypeError,
        match=r"takes \(x, u, grad_u\), but gets x, u, grad_u and 1 parameter: every term gets all parameters",
    ):
        getattr(Energy(V, plain), call)(U, 1.0)


def test_boundary_terms_get_all_parameters() -> None:
    energy = Energy(V, weighted, Dirichlet(V, {"left": 0.0}), boundary={"right": lambda x, u, normal: u})
    with pytest.raises(
        TypeError,
        match=r"the boundary density on 'right' takes \(x, u, normal\), but gets x, u, normal and 2 parameters: every "
        r"term gets all parameters\. Let it take them, by name or as `\(x, u, normal, \*params\)`",
    ):
        energy(U, 1.0, 2.0)


def test_sums_of_energies_check_each_term() -> None:
    with pytest.raises(TypeError, match="every term gets all parameters"):
        (Energy(V, plain) + Energy(V, weighted))(U, 1.0)


@pytest.mark.parametrize(
    ("kind", "density", "options", "message"),
    [
        (Energy, lambda x, u: u, {}, r"the density takes \(x, u\); it must take \(x, u, grad_u\) and then all param"),
        (Energy, lambda x, u, g, *, k: u, {}, r"takes `k` by name, and parameters are passed by position"),
        (
            Energy,
            plain,
            {"boundary": {"left": lambda x, u: u}},
            r"on 'left' takes \(x, u\); it must take \(x, u, nor",
        ),
        (Energy, plain, {"boundary": {"left": plain}, "derivatives": (1, 1)}, r"must take \(x, u, grad_u, normal\)"),
        (WeakForm, plain, {}, r"the form takes \(x, u, grad_u\); it must take \(x, u, grad_u, v, grad_v\)"),
    ],
)
def test_own_arguments_are_checked_when_the_functional_is_made(kind, density, options, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        kind(V, density, **options)


def test_errors_of_the_density_itself_are_its_own() -> None:
    def density(x, u, grad_u, k):
        raise TypeError("my own affair")

    with pytest.raises(TypeError, match=r"^my own affair$"):
        Energy(V, density)(U, 1.0)


def test_mixed_densities_get_tuples() -> None:
    W = MixedSpace(V, V)
    with pytest.raises(TypeError, match=r"the density takes \(x, u\); it must take \(x, u, grad_u\)"):
        Energy(W, lambda x, u: u[0])
