"""Programs: constants fold as PyTorch computes them, trivial operations vanish, nothing is computed twice."""

import operator
from math import copysign, inf, isnan, nan

import numpy as np
import pytest
import torch

from fem.kernels.program import Builder, Program, Scalar, object_array

aten = torch.ops.aten


@pytest.fixture
def builder() -> Builder:
    return Builder(torch.float64)


def run(builder: Builder, outputs: list, *inputs: float) -> list:
    program = Program(builder, [object_array(outputs, (len(outputs),))])
    found = program.run(*[torch.tensor([v], dtype=torch.float64) for v in inputs])
    return [f.item() if isinstance(f, torch.Tensor) else f for f in found]


def test_zeros_and_ones_vanish(builder: Builder) -> None:
    a = builder.input()
    for target, args, wanted in (
        (operator.add, (a, 0.0), a),
        (operator.add, (0.0, a), a),
        (operator.sub, (a, 0), a),
        (operator.mul, (a, 1.0), a),
        (operator.mul, (1, a), a),
        (operator.mul, (0.0, a), 0.0),
        (operator.truediv, (a, 1.0), a),
        (operator.truediv, (0.0, a), 0.0),
        (operator.pow, (a, 1), a),
        (operator.pow, (a, 0), 1.0),
    ):
        found = builder.emit(target, *args)
        assert found is wanted if wanted is a else found == wanted, (target, args)
    assert builder.scalars == [a]


def test_factors_meet_and_cancel(builder: Builder) -> None:
    a, b = builder.input(), builder.input()
    product = (a * 0.5) * (b * 2.0)
    assert product.factor == 1
    assert (a * 2.0 * b * 3.0 * 0.5).factor == 3
    assert (a * 4.0) * 0.25 is a
    assert run(builder, [product, a * 2.0 * b * 3.0], 3.0, 5.0) == [15.0, 90.0]


def test_squares_are_products(builder: Builder) -> None:
    a = builder.input()
    assert builder.emit(operator.pow, a, 2) is a * a
    assert run(builder, [builder.emit(operator.pow, a, 3), builder.emit(operator.pow, 2, a)], 3.0) == [27.0, 8.0]


def test_the_same_operation_is_done_once(builder: Builder) -> None:
    a = builder.input()
    assert builder.emit(aten.sin.default, a) is builder.emit(aten.sin.default, a)
    assert builder.emit(aten.gelu.default, a) is not builder.emit(aten.gelu.default, a, approximate="tanh")
    assert builder.emit(aten.clamp.default, a, None, 1.0) is not builder.emit(aten.clamp.default, a, 1.0, None)


def test_constants_are_told_apart(builder: Builder) -> None:
    """Though 0 = −0, 1 = True, and nan ≠ nan."""
    a = builder.input()
    signs = [builder.emit(aten.copysign.Tensor, a, zero) for zero in (0.0, -0.0)]
    assert run(builder, signs, 3.0) == [3.0, -3.0]
    assert builder.constant(True) is not builder.constant(1)
    assert builder.constant(nan) is builder.constant(float("nan"))


def test_numbers_that_are_not_finite(builder: Builder) -> None:
    a = builder.input()
    outputs = [a * inf, builder.emit(operator.add, a, nan), builder.emit(aten.minimum.default, a, -inf), nan, -inf]
    found = run(builder, outputs, 2.0)
    assert found[0] == inf
    assert isnan(found[1])
    assert isnan(found[3])
    assert found[2] == found[4] == -inf


def test_constants_fold_as_in_pytorch(builder: Builder) -> None:
    assert builder.emit(operator.truediv, 1.0, 0.0) == inf
    assert builder.emit(operator.truediv, 1, 3) == 1 / 3
    assert isnan(builder.emit(operator.pow, -1.0, 0.5))
    assert builder.emit(operator.pow, 10.0, 400.0) == inf
    assert builder.emit(aten.sin.default, 0.1) == torch.tensor(0.1, dtype=torch.float64).sin().item()
    assert copysign(1, builder.emit(operator.mul, -1.0, 0.0)) == -1
    assert builder.emit(aten.gt.Scalar, 2.0, 1.0) is True
    assert builder.emit(aten.clamp.default, 2.0, None, 1.0) == 1.0
    assert builder.scalars == []


def test_truth_values(builder: Builder) -> None:
    a = builder.input()
    positive = builder.emit(aten.gt.Scalar, a, 0)
    number = builder.convert(positive, torch.float64)
    chosen = builder.emit(aten.where.self, positive, 1.0, a)
    never = builder.emit(aten.where.self, False, 1.0, a)
    assert run(builder, [number + number, chosen, never], 3.0) == [2.0, 1.0, 3.0]
    assert builder.convert(True, torch.float64) == 1.0
    assert builder.convert(0.5, torch.bool) is True


def test_arrays_of_scalars_compute(builder: Builder) -> None:
    """NumPy's sums and matrix products of object arrays, which are taken apart like everything else."""
    entries = [builder.input() for _ in range(4)]
    matrix = object_array(entries, (2, 2))
    product = matrix @ np.array([[1.0, 2.0], [0.0, 0.5]]).astype(object)
    total = np.add.reduce(product.reshape(-1))
    assert isinstance(total, Scalar)
    assert run(builder, [*product.reshape(-1), total], 1.0, 2.0, 3.0, 4.0) == [1.0, 3.0, 3.0, 8.0, 15.0]


def test_used_tells_which_inputs_matter(builder: Builder) -> None:
    a, b, c = (builder.input() for _ in range(3))
    _ = a * b  # never asked for
    program = Program(builder, [object_array([c + 1.0], ())])
    assert program.used == (False, False, True)
    assert program.shapes == [()]
