"""Integrands: the program of a density with the tensors that it depends on, and derivatives of any order.

The density enters as a program of scalars (`fem.kernels.tracing`); how it is integrated over the cells of a grid or of
any mesh is told by `fem.kernels.grid_integrand` and `fem.kernels.cells`. Derivatives of any order are integrals of the
same kind, since the derivative of J in a direction w is the integral of the directional derivative of its density:
autograd through them never meets a gather, a scatter or an array over quadrature points.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from fem.kernels.derivatives_at_point import (
    directional,
    hessian,
    value_and_gradient,
    value_gradient_and_curvature,
)
from fem.kernels.grid_inputs import Input
from fem.kernels.program import Program, UntraceableError
from fem.kernels.tape import Tape
from fem.kernels.tracing import trace, trace_parts
from fem.support.cache import Store
from fem.support.modes import outside_modes
from fem.support.transforms import hidden, pulled_back

KEPT = 256  # programs and loops; each may hold compiled code
_made = Store("programs and loops of densities", KEPT)


@dataclass(frozen=True, eq=False)
class Integrand:
    """ψ(x, arguments) on cells, which subclasses know; argument 0 is x.

    `arguments` gives each argument's shape at one point, or the number it is. `function` was made of the density on the
    `tape` as `key` says; what is made of it in turn is kept in `made`. The residual is the derivative in the inputs
    `tests`, which are the `unknowns` of energies; weak forms are linear in their test functions, inputs of their own.
    """

    space: Any
    tape: Tape | None  # None where there was no density
    key: Hashable
    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    inputs: tuple[Input, ...]
    made: dict[Hashable, Any] = field(default_factory=dict)
    unknowns: tuple[int, ...] = (0,)
    tests: tuple[int, ...] = (0,)

    @property
    def entries(self) -> list[tuple[int, int]]:
        """(argument, entry) of every input of a program, in order."""
        return [(i, k) for i, a in enumerate(self.arguments) if isinstance(a, tuple) for k in range(prod(a))]

    def derivative(self, wrt: Sequence[int]) -> "Integrand":
        """The integrand of Σ ⟨∂J/∂input, w⟩ over the inputs in `wrt`: the directions w are its last inputs."""
        what = ("derivative", tuple(wrt))
        if what not in self.made:
            self.made[what] = self._derivative(wrt)
        return self.made[what]

    def _derivative(self, wrt: Sequence[int]) -> "Integrand":
        positions, directions = self.positions(wrt), []
        start = len(self.arguments)
        for i in wrt:
            places = tuple((order, start + k) for k, (order, _) in enumerate(self.inputs[i].places))
            directions.append(replace(self.inputs[i], places=places))
            start += len(places)
        return replace(
            self,
            key=(self.key, tuple(wrt)),
            function=directional(self.function, positions),
            arguments=(*self.arguments, *[self.arguments[p] for p in positions]),
            inputs=(*self.inputs, *directions),
            made={},
        )

    def along_constant(self) -> "Integrand":
        """The derivative in the direction of constants: values and slopes, exactly 0, are inputs by turns."""
        along, k = self.derivative(self.unknowns), len(self.inputs)
        places = [place for given in along.inputs[k:] for _, place in given.places]
        slots = [Input("constant", ((0, place),), along.arguments[place]) for place in places]
        return replace(along, key=(along.key, "constant"), inputs=(*along.inputs[:k], *slots), made={})

    def positions(self, wrt: Sequence[int]) -> list[int]:
        return [position for i in wrt for _, position in self.inputs[i].places]

    def program(self, kind: str, wrt: Sequence[int]) -> Program:
        """ψ and its "gradient" in some inputs, that alone ("slope") or its derivative in the unknowns ("hessian").

        A program of the entries of arguments.

        Raises:
            UntraceableError: see `fem.kernels.tracing.trace`.
        """

        def build() -> Program | str:
            wanted, columns = self.places_of(wrt), self.places_of(self.unknowns)
            both = value_and_gradient(self.at_point, wanted)
            make = {
                "gradient": both,
                "slope": lambda *a: both(*a)[1:],
                "hessian": hessian(self.at_point, wanted, columns),
            }
            try:
                return trace(make[kind], [self.arguments[i] for i in self.free], self.space.dtype)
            except UntraceableError as error:
                return str(error)

        found = self.kept((kind, tuple(wrt)), build)
        if isinstance(found, str):
            raise UntraceableError(found)
        return found

    def value_and_derivatives(self) -> tuple[Program, Program]:
        """ψ with its gradient in the tests, and the slopes of its derivative in the unknowns: of one trace for both.

        Raises:
            UntraceableError: an operation may have one derivative, but not two.
        """
        along, shapes = self.derivative(self.unknowns), [self.arguments[i] for i in self.free]
        wanted, unknowns = self.places_of(self.tests), self.places_of(self.unknowns)

        def build() -> Sequence[Program] | str:
            directions = [shapes[i] for i in unknowns]
            try:
                return trace_parts(
                    value_gradient_and_curvature(self.at_point, wanted, unknowns),
                    [*shapes, *directions],
                    self.space.dtype,
                    [len(shapes), len(shapes) + len(directions)],
                )
            except UntraceableError as error:
                return str(error)

        found = self.kept(("value and derivatives",), build)
        if isinstance(found, str):
            raise UntraceableError(found)
        first, second = found
        return self.kept(("gradient", self.tests), lambda: first), along.kept(("slope", self.tests), lambda: second)

    def places_of(self, inputs: Sequence[int]) -> list[int]:
        """Where the arguments that belong to some inputs stand among those that are no plain numbers."""
        return [self.free.index(p) for p in self.positions(inputs)]

    @cached_property
    def free(self) -> list[int]:
        """The arguments that are no plain numbers."""
        return [i for i, a in enumerate(self.arguments) if isinstance(a, tuple)]

    def at_point(self, *args: Tensor) -> Tensor:
        """ψ of the arguments that are no plain numbers."""
        full = list(self.arguments)
        for i, a in zip(self.free, args, strict=True):
            full[i] = a
        return self.function(*full)

    def kept(self, what: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """`make()`, kept here and for all integrands of equal tapes."""
        if what not in self.made:
            # Arguments by name, since 0 and −0 are equal and nan is not itself.
            key = self.tape, self.key, repr(self.arguments), self.inputs, self.space.dtype, *what
            self.made[what] = _made.get(key, make)
        return self.made[what]

    # -- what subclasses tell ------------------------------------------------------------------------------------------

    @property
    def place(self) -> Hashable:
        """The cells and the quadrature rule."""
        raise NotImplementedError

    def evaluate(
        self, tensors: Sequence[Tensor], wrt: Sequence[int] = (), value: bool = True, magnitude: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """J "*b", its derivatives "*b …" item by item, and with `magnitude` the sums of their contributions by size."""
        raise NotImplementedError

    # -- second derivatives --------------------------------------------------------------------------------------------

    @cached_property
    def hessian_program(self) -> Program:
        """The program of second derivatives in tests and unknowns, as it was when it was first asked for."""
        return self.program("hessian", self.tests)

    @cached_property
    def hessian_inputs(self) -> set[int]:
        """The inputs that second derivatives in tests and unknowns depend on; −1 stands for x."""
        names, used = self.entries, self.hessian_program.used[: len(self.entries)]  # without directions
        owner = {place: i for i, given in enumerate(self.inputs) for _, place in given.places}
        return {owner.get(argument, -1) for (argument, _), matters in zip(names, used, strict=True) if matters}

    @property
    def quadratic(self) -> bool:
        """Whether J is quadratic in the unknowns, a weak form linear."""
        return not self.hessian_inputs.intersection(self.unknowns)

    @property
    def uniform(self) -> bool:
        """Whether second derivatives are the same in all cells."""
        return all(i >= 0 and self.inputs[i].kind == "constant" for i in self.hessian_inputs)

    def same_hessian(self, mine: Sequence[Tensor], other: "Integrand", theirs: Sequence[Tensor]) -> bool:
        """Whether both have the same second derivatives: one program, and the same values of what it depends on."""
        ours, others = sorted(self.hessian_inputs), sorted(other.hessian_inputs)
        if self.place != other.place or len(ours) != len(others) or (-1 in ours) != (-1 in others):
            return False
        if self.hessian_program.signature != other.hessian_program.signature:
            return False
        pairs = [
            (self.inputs[i], other.inputs[j], mine[i], theirs[j]) for i, j in zip(ours, others, strict=True) if i >= 0
        ]
        return all(a == b and (x is y or torch.equal(x, y)) for a, b, x, y in pairs)


# -- autograd --------------------------------------------------------------------------------------------------------


class IntegralValue(torch.autograd.Function):
    """J "*b" of the tensors of an integrand: value and gradient in one loop."""

    @staticmethod
    def forward(ctx: Any, integrand: Integrand, *tensors: Tensor) -> Tensor:
        ctx.integrand, ctx.wrt = integrand, [i for i, need in enumerate(ctx.needs_input_grad[1:]) if need]
        value, gradients, _ = integrand.evaluate(tensors, ctx.wrt)
        ctx.save_for_backward(*tensors, *gradients)
        return value

    @staticmethod
    @outside_modes
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.integrand.inputs)
        tensors, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        integrand = ctx.integrand
        if hidden(grad):
            return None, *pulled_back(
                lambda *t: (IntegralValue.apply(integrand, *t),), tensors, ctx.needs_input_grad[1:], [grad]
            )
        if torch.is_grad_enabled():
            gradients = IntegralSlopes.apply(integrand, ctx.wrt, *tensors)
        found: list[Tensor | None] = [None] * count
        for i, g in zip(ctx.wrt, gradients, strict=True):
            scaled = grad.reshape((*grad.shape, *[1] * (g.ndim - grad.ndim))) * g
            found[i] = scaled.sum_to_size(tensors[i].shape)
        return None, *found


class IntegralSlopes(torch.autograd.Function):
    """∂J/∂tensors[i] "*b …" for i in `wrt`, item by item."""

    @staticmethod
    def forward(ctx: Any, integrand: Integrand, wrt: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.integrand, ctx.wrt = integrand, wrt
        ctx.save_for_backward(*tensors)
        return tuple(integrand.evaluate(tensors, wrt, value=False)[1])

    @staticmethod
    @outside_modes
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        tensors, inner = ctx.saved_tensors, ctx.integrand.derivative(ctx.wrt)
        if hidden(*directions):
            slopes = partial(IntegralSlopes.apply, ctx.integrand, ctx.wrt)
            return None, None, *pulled_back(slopes, tensors, ctx.needs_input_grad[2:], directions)
        needed = [i for i, need in enumerate(ctx.needs_input_grad[2:]) if need]
        if torch.is_grad_enabled():
            gradients = IntegralSlopes.apply(inner, needed, *tensors, *directions)
        else:
            gradients = inner.evaluate([*tensors, *directions], needed, value=False)[1]
        found: list[Tensor | None] = [None] * len(tensors)
        for i, g in zip(needed, gradients, strict=True):
            found[i] = g.sum_to_size(tensors[i].shape)
        return None, None, *found
