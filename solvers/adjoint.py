"""The implicit adjoint: gradients through a solve for the price of one linear solve, to any order.

If F(y, θ) = 0 defines y(θ), then for a scalar with ∂/∂y = ȳ

    F_yᵀ λ = ȳ,        θ̄ = −(∂F/∂θ)ᵀ λ.

λ is itself defined by a linear equation of the same kind, G(λ; ȳ, y, θ) = F_yᵀ λ − ȳ = 0, so the backward pass attaches
it in the same way, and its adjoint uses F_y: one matrix and its transpose serve all orders. θ are the tensors of the
discrete form (geometry, parameters and prescribed values at points); ordinary autograd takes over from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError
from fem.support.threads import alone_if_small, sharing_cores
from fem.support.transforms import hidden, pulled_back
from solvers.linear.blocks.saddle_point import PreparedSaddlePoint
from solvers.operators.system import LinearMethod, Prepared, System
from solvers.reuse import Reuse


@runtime_checkable
class Problem(Protocol):
    """An equation F(y, θ) = 0 with the products and solves of its linearisation in y."""

    def residual(self, y: Tensor, tensors: Sequence[Tensor]) -> Tensor: ...

    def product(self, y: Tensor, tensors: Sequence[Tensor], v: Tensor, transpose: bool) -> Tensor: ...

    def solve(self, rhs: Tensor, y: Tensor, tensors: Sequence[Tensor], transpose: bool) -> Tensor: ...


@dataclass(eq=False)
class Stationary:
    """r(u; θ) = 0 for a discrete form, whose own tensors play no part; `prepared` is a factorisation that may serve.

    Where there is none, one may be kept in `reuse`.
    """

    form: DiscreteForm
    method: LinearMethod
    symmetric: bool
    prepared: Prepared | None = None
    reuse: Reuse | None = None

    def residual(self, y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        return self.form.with_tensors(tensors).residual(y)

    def product(self, y: Tensor, tensors: Sequence[Tensor], v: Tensor, transpose: bool) -> Tensor:
        return self.form.with_tensors(tensors).hessian_product(y, v, transpose)

    def solve(self, rhs: Tensor, y: Tensor, tensors: Sequence[Tensor], transpose: bool) -> Tensor:
        system = System(self.form.with_tensors([t.detach() for t in tensors]), y.detach(), None, self.symmetric)
        if self.reuse is not None:
            return self.reuse.ready(system, self.method).solve(rhs, None, transpose)
        if self.prepared is None or not system.same_matrix(self.prepared.system):
            self.prepared = self.method.prepare(system)
        found = self.prepared.solve(rhs, None, transpose)
        if isinstance(self.prepared, PreparedSaddlePoint) and bool(self.prepared.unsolved.any()):
            raise ConvergenceError(
                "the linear iteration for the gradient got stuck: solve with `method=Direct()`, or look for what "
                "makes the problem nearly singular.",
                found,
            )
        return found

    def light(self, reuse: Reuse) -> "Stationary":
        """The same without a tensor of its own: for graphs whose nodes are to hold nothing but what they save."""
        hollow = [t.new_zeros(()).expand(t.shape) for t in self.form.tensors()]
        return Stationary(self.form.with_tensors(hollow), self.method, self.symmetric, None, reuse)


@dataclass
class Adjoint:
    """F_yᵀ λ − ȳ = 0, with tensors (ȳ, y, *θ)."""

    problem: Any

    def residual(self, y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        rhs, inner, *rest = tensors
        return self.problem.product(inner, rest, y, True) - rhs

    def product(self, y: Tensor, tensors: Sequence[Tensor], v: Tensor, transpose: bool) -> Tensor:
        _, inner, *rest = tensors
        return self.problem.product(inner, rest, v, not transpose)

    def solve(self, rhs: Tensor, y: Tensor, tensors: Sequence[Tensor], transpose: bool) -> Tensor:
        _, inner, *rest = tensors
        return self.problem.solve(rhs, inner, rest, not transpose)


class Attach(torch.autograd.Function):
    """y as a differentiable function of the tensors that define it."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.problem = problem
        ctx.set_materialize_grads(False)
        y = value.clone()
        ctx.save_for_backward(y, *tensors)
        return y

    @staticmethod
    @outside_modes
    @sharing_cores
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        y, *tensors = ctx.saved_tensors
        if grad is None:  # nothing to solve for
            return (None,) * (2 + len(tensors))
        create_graph, needed = torch.is_grad_enabled(), ctx.needs_input_grad[2:]
        alone_if_small(y.numel())
        if hidden(grad):
            problem, value = ctx.problem, y.detach()
            return None, None, *pulled_back(lambda *t: (Attach.apply(problem, value, *t),), tensors, needed, [grad])
        with torch.no_grad():
            multiplier = ctx.problem.solve(grad, y, tensors, True)
        if create_graph:
            multiplier = Attach.apply(Adjoint(ctx.problem), multiplier, grad, y, *tensors)
        else:
            y = y.detach()
        with torch.enable_grad():
            inputs = aliases(tensors, needed, create_graph)
            inner = -(multiplier * ctx.problem.residual(y, inputs)).sum()
            return None, None, *gradients(inner, inputs, needed, create_graph)


class Deferred(torch.autograd.Function):
    """J "*b" of u and the tensors of a functional, known already: it is evaluated again only to be differentiated.

    u is stationary, J_u(u(θ), θ) = 0 for all θ, so that dJ/dθ = J_θ (envelope theorem): no gradient goes back to u, and
    none asks for a linear solve. Second derivatives J_θθ + J_θu u_θ do, where J_θ is differentiated.
    """

    @staticmethod
    def forward(ctx: Any, form: DiscreteForm, value: Tensor, u: Tensor, *tensors: Tensor) -> Tensor:
        ctx.form = form.with_tensors([t.detach() for t in tensors])
        ctx.save_for_backward(u, *tensors)
        return value.clone()

    @staticmethod
    @outside_modes
    @sharing_cores
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        create_graph, needed = torch.is_grad_enabled(), (False, *ctx.needs_input_grad[3:])
        if hidden(grad):
            form, given = ctx.form, ctx.saved_tensors
            return None, None, *pulled_back(lambda u, *rest: (form.with_tensors(rest).value(u),), given, needed, [grad])
        with torch.enable_grad():
            inputs = aliases(ctx.saved_tensors, needed, create_graph)
            value = (ctx.form.with_tensors(inputs[1:]).value(inputs[0]) * grad).sum()
            return None, None, *gradients(value, inputs, needed, create_graph)


def aliases(tensors: Sequence[Tensor], needed: Sequence[bool], create_graph: bool) -> list[Tensor]:
    """Inputs that are no part of another's graph, so that each gradient counts its own path alone."""
    return [
        (t.view_as(t) if create_graph and t.requires_grad else t.detach().requires_grad_()) if need else t
        for t, need in zip(tensors, needed, strict=True)
    ]


def gradients(
    value: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool], create_graph: bool
) -> list[Tensor | None]:
    wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
    grads = iter(torch.autograd.grad(value, wanted, create_graph=create_graph, allow_unused=True))
    return [next(grads) if need else None for need in needed]


def attach(problem: Problem, value: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """The solution as a node of the graph, if anything it depends on needs a gradient."""
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return value
    result = Attach.apply(problem, value, *tensors)
    assert isinstance(result, Tensor)
    return result
