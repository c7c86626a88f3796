"""Of which degree a program's outputs are as polynomials: what a quadrature must be exact to."""

import operator
from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import torch

from fem.kernels.program import Program

aten = torch.ops.aten


class Degree(NamedTuple):
    """Of a polynomial; infinite where something is none."""

    value: float


def polynomial_degrees(program: Program, inputs: Sequence[float]) -> list[float]:
    """The degree of each output in the variables in which the inputs have these; infinite of what is no polynomial."""
    found = program.values([Degree(d) for d in inputs], operation)
    return [f.value if isinstance(f, Degree) else 0 for f in found]


def operation(target: Any, args: Sequence[Any], options: dict[str, Any]) -> Degree:
    packet = getattr(target, "overloadpacket", target)
    degrees = [a.value for a in args if isinstance(a, Degree)]
    if not any(degrees):
        return Degree(0)
    if packet in (operator.add, operator.sub, aten.rsub, aten.neg):
        return Degree(max(degrees))
    if packet is operator.mul:
        return Degree(sum(degrees))
    if packet is aten.square:
        return Degree(2 * degrees[0])
    if packet is operator.truediv and not (isinstance(args[1], Degree) and args[1].value):
        return Degree(degrees[0])
    power = args[1] if packet in (operator.pow, aten.pow) else None
    if isinstance(power, int | float) and power >= 0 and float(power).is_integer():
        return Degree(power * degrees[0])
    return Degree(inf)
