"""Transformations of PyTorch around code that is written for plain reverse mode.

`torch.func`, `torch.vmap` and forward differentiation hand out tensors that no solver, no C code and no cache can look
into. `plainly` runs a function of tensors on plain ones, whatever is under way, and gives the result the derivatives
that reverse mode knows: a vector-Jacobian product by one backward pass, a Jacobian-vector product by differentiating
that pass in its (dummy) vector, both functions of tensors again, so that all orders and all mixtures follow.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
    maybe_get_bdim,
    maybe_get_level,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter, temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

Plain = Callable[..., Sequence[Tensor]]  # a function of plain tensors, differentiable by autograd

add_batch_axis: Callable[..., Tensor] = vars(torch)["_add_batch_dim"]  # of the mapping that `is_grads_batched` has
remove_batch_axis: Callable[..., Tensor] = vars(torch)["_remove_batch_dim"]
outside_transforms = temporarily_clear_interpreter_stack  # what is kept must not belong to one of them


def transformed() -> bool:
    """Whether a `torch.func` transformation, `torch.vmap` or a level of forward differentiation is under way."""
    forward = forward_ad._current_level >= 0 and forward_ad._is_fwd_grad_enabled()  # off where functions run plainly
    return peek_interpreter_stack() is not None or forward


def carries(tensor: Tensor) -> bool:
    """Whether derivatives or a mapped axis hang on a tensor, in any mode, so that nothing made of it may be kept."""
    if tensor.requires_grad or is_functorch_wrapped_tensor(tensor):
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def depends(tensor: Tensor) -> bool:
    """Whether a tensor depends on one that is being differentiated or mapped, at any level."""
    if tensor.requires_grad or maybe_get_bdim(tensor) >= 0:
        return True
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    if peek_interpreter_stack() is None:
        return False
    interpreter = retrieve_current_functorch_interpreter()
    inner = get_unwrapped(tensor) if maybe_get_level(tensor) == interpreter.level() else tensor
    with interpreter.lower():
        return depends(inner)


def mapped(tensor: Tensor) -> bool:
    """Whether `torch.vmap` hides the numbers of a tensor."""
    while is_functorch_wrapped_tensor(tensor):
        if maybe_get_bdim(tensor) >= 0:
            return True
        tensor = get_unwrapped(tensor)
    return False


@contextmanager
def outside_batched_gradients() -> Iterator[int]:
    """Without the mapping that `torch.autograd.grad(is_grads_batched=True)` has of its own; yields its level."""
    level = torch._C._vmapmode_increment_nesting() - 1
    for _ in range(level + 1):
        torch._C._vmapmode_decrement_nesting()
    try:
        yield level
    finally:
        for _ in range(level):
            torch._C._vmapmode_increment_nesting()


def hidden(*tensors: Tensor) -> bool:
    """Whether a backward pass must go by `plainly`, as part of a transformation or with a batch of gradients."""
    return peek_interpreter_stack() is not None or any(map(is_legacy_batchedtensor, tensors))


def plainly(function: Plain, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`function(*tensors)`, run on plain tensors and differentiable in every way in those of floating point."""
    return Opaque.apply(function, *tensors)  # type: ignore[return-value]


def folded(function: Plain, extended: Sequence[bool]) -> Plain | None:
    """The function for tensors some of which have one more axis, in front, and so has what it returns: all items at
    once, if it knows how (`function.folded`); None else."""
    own = getattr(function, "folded", None)
    return None if own is None else own(extended)


def folded_derivative(kind: Any, derivative: Any, chosen: Sequence[int], extended: Sequence[bool]) -> Plain | None:
    """`Pullback` or `Pushforward` with one more axis; where it is on directions alone, the function has no batch."""
    count = derivative.count
    more = [i >= count or i in chosen or e for i, e in enumerate(extended)]
    inner = folded(derivative.function, more[:count]) if any(extended[:count]) else None
    if inner is None:
        return None

    def plain(*given: Tensor) -> Sequence[Tensor]:
        size = next(len(t) for t, e in zip(given, extended, strict=True) if e)
        triples = zip(given, extended, more, strict=True)
        return kind(inner, count, chosen)(*[t.expand(size, *t.shape) if m and not e else t for t, e, m in triples])

    return plain


def pulled_back(
    function: Plain, tensors: Sequence[Tensor], needed: Sequence[bool], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """The backward pass of a function where PyTorch hides the numbers of its gradients; None where none is needed."""
    wanted = [i for i, need in enumerate(needed) if need]
    found = iter(plainly(Pullback(function, len(tensors), wanted), [*tensors, *grads]))
    return [next(found) if need else None for need in needed]


class Opaque(torch.autograd.Function):
    """A function of plain tensors as one node for every transformation.

    `torch.vmap` runs it item by item, unless it can be `folded`, and at once then.
    """

    @staticmethod
    def forward(function: Plain, *tensors: Tensor) -> tuple[Tensor, ...]:
        with outside_batched_gradients() as level:
            batched = [is_legacy_batchedtensor(t) for t in tensors]
            if not any(batched):
                return tuple(function(*tensors))
            given = [remove_batch_axis(t, level, 1, 0) if b else t for t, b in zip(tensors, batched, strict=True)]
            size = next(len(t) for t, b in zip(given, batched, strict=True) if b)
            items = [function(*[t[i] if b else t for t, b in zip(given, batched, strict=True)]) for i in range(size)]
            return tuple(add_batch_axis(torch.stack(parts), 0, level) for parts in zip(*items, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.smooth = inputs[0], [t.is_floating_point() for t in output]
        ctx.mark_non_differentiable(*[t for t in output if not t.is_floating_point()])
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *pulled_back(ctx.function, ctx.saved_tensors, ctx.needs_input_grad[1:], grads)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        given = {i: t for i, t in enumerate(tangents) if t is not None}
        tensors = ctx.saved_tensors
        found = iter(plainly(Pushforward(ctx.function, len(tensors), list(given)), [*tensors, *given.values()]))
        return tuple(next(found) if smooth else None for smooth in ctx.smooth)

    @staticmethod
    def vmap(info: Any, axes: tuple, function: Plain, *tensors: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        at_once = folded(function, [d is not None for d in axes[1:]])
        if at_once is not None:
            moved = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, axes[1:], strict=True)]
            found = plainly(at_once, moved)
            return found, (0,) * len(found)
        items = [
            plainly(function, [t if d is None else t.select(d, i) for t, d in zip(tensors, axes[1:], strict=True)])
            for i in range(info.batch_size)
        ]
        found = tuple(torch.stack(parts) for parts in zip(*items, strict=True))
        return found, (0,) * len(found)


@dataclass(frozen=True, eq=False)
class Pullback:
    """(x, ȳ) ↦ ȳᵀ ∂f/∂x for the `wanted` of the first `count` tensors."""

    function: Plain
    count: int
    wanted: Sequence[int]

    def folded(self, extended: Sequence[bool]) -> Plain | None:
        return folded_derivative(Pullback, self, self.wanted, extended)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = aliases(given[: self.count], self.wanted, graph)
            output = self.function(*inputs)
            pairs = [(y, g) for y, g in zip(output, given[self.count :], strict=True) if y.requires_grad]
            return products(pairs, [inputs[i] for i in self.wanted], graph)


@dataclass(frozen=True, eq=False)
class Pushforward:
    """(x, ẋ) ↦ ∂f/∂x ẋ, ẋ for those `moved`: the pullback, linear in ȳ, differentiated in it."""

    function: Plain
    count: int
    moved: Sequence[int]

    def folded(self, extended: Sequence[bool]) -> Plain | None:
        return folded_derivative(Pushforward, self, self.moved, extended)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = aliases(given[: self.count], self.moved, graph)
            output = self.function(*inputs)
            output = [y for y in output if y.is_floating_point()]
            dummies = [torch.zeros_like(y, requires_grad=True) for y in output]
            pairs = [(y, g) for y, g in zip(output, dummies, strict=True) if y.requires_grad]
            back = products(pairs, [inputs[i] for i in self.moved], True)
            pairs = [(b, t) for b, t in zip(back, given[self.count :], strict=True) if b.requires_grad]
            return products(pairs, dummies, graph)


def aliases(tensors: Sequence[Tensor], wanted: Sequence[int], graph: bool) -> list[Tensor]:
    """Inputs, the wanted ones no part of another's graph, so that each derivative counts its own path alone."""
    return [
        t if i not in wanted else t.view_as(t) if graph and t.requires_grad else t.detach().requires_grad_()
        for i, t in enumerate(tensors)
    ]


def products(pairs: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[Tensor], graph: bool) -> list[Tensor]:
    """Σ ȳᵀ ∂y/∂x over pairs (y, ȳ), zero where nothing depends on x."""
    if not (pairs and wanted):
        return [torch.zeros_like(x) for x in wanted]
    outputs, grads = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, wanted, grads, create_graph=graph, materialize_grads=True))
