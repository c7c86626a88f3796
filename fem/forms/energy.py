"""Energies and weak forms: integrals of a pointwise expression of x, u and ∇u, as differentiable functions of dofs.

The user writes the density at a point; everything else follows by differentiating the *density* at quadrature points:
the residual from its first derivatives, the Hessian from its second. Nothing differentiates twice through the gather.

Evaluation has two steps: `lower` turns whatever lies outside (mesh nodes, parameters, prescribed values) into tensors
at quadrature points and dofs; `fem.forms.discrete` works on those alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fem.forms.constraints import Constraint, Free
from fem.forms.discrete import Density, Lowered, LoweredTerm, Term, lower_fused, outside_inference
from fem.forms.parameters import Constant, Function, Gradient, NodalValues, Parameter, at_points
from fem.mesh.geometry import Geometry
from fem.space.space import AnySpace


class Functional:
    """What energies and weak forms share: their space, terms and constraint, and evaluation by lowering."""

    linear_in_test = False

    def __init__(
        self,
        space: AnySpace,
        density: Density,
        dirichlet: Constraint | None = None,
        boundary: Mapping[str, Density] | None = None,
        derivatives: int | tuple[int, int] = 1,
    ):
        kind = type(self).__name__
        inner, outer = derivatives if isinstance(derivatives, tuple) else (derivatives, max(derivatives - 1, 0))
        if inner not in (0, 1, 2) or outer not in (0, 1, 2):
            raise ValueError(f"`{kind}(derivatives=...)` must be 0, 1 or 2, or a pair of them; got {derivatives!r}.")
        if not callable(density):
            raise TypeError(f"`{kind}` needs a callable; got {type(density).__name__}.")
        if dirichlet is not None and dirichlet.space is not space:
            raise ValueError(f"`{kind}(dirichlet=...)` belongs to another space; make it on the one given here.")
        self.space = space
        self.constraint: Constraint = Free(space) if dirichlet is None else dirichlet
        self.terms = (Term(density, None, inner, self.linear_in_test),)
        for tag, term in (boundary or {}).items():
            space.domains(tag)  # unknown tags are told now, not at the first evaluation
            self.terms += (Term(term, tag, outer, self.linear_in_test),)
        smooth = min(f.continuity for f in space.fields)
        if max(inner, outer) == 2 and smooth < 1:
            raise ValueError(
                "second derivatives need a basis with continuous first ones, and Lagrange elements have kinks between "
                "cells; use a spline space of degree 2 or more, or a mixed form."
            )

    def lower(self, params: Sequence[Parameter] = (), fused: bool = True) -> "Lowered":
        """Everything outside the functional as tensors at quadrature points and dofs.

        Args:
            fused: whether terms may be integrated without ever having values at points.

        Raises:
            ValueError, TypeError: a parameter that does not fit the space (its position named).
        """
        lowered = []
        for term in self.terms:
            for domain in self.space.domains(term.tag):
                found = lower_fused(self.space, term, domain, params) if fused else None
                if found is None:
                    geometry = self.space.geometry(domain, max(term.derivatives, 1))
                    at = [at_points(p, f"parameter {i}", self.space, domain, geometry) for i, p in enumerate(params)]
                    found = LoweredTerm(self.space, term, domain, tuple(at), self._moving(geometry))
                lowered.append(found)
        return Lowered(self.space, self.constraint, tuple(lowered), self.constraint.data())

    def _moving(self, geometry: Geometry) -> Geometry | None:
        return geometry if self.space.mesh.version is None else None  # none: the nodes need gradients

    @outside_inference
    def residual(self, u: Tensor, *params: Parameter) -> Tensor:
        """The first derivative, shaped like the dofs; zero at prescribed dofs."""
        return self.lower(params).residual(self.space.check(u))

    @outside_inference
    def hessian_product(self, u: Tensor, v: Tensor, *params: Parameter) -> Tensor:
        """The derivative of the residual at u in the direction v, without a matrix; zero at prescribed dofs."""
        return self.lower(params).hessian_product(self.space.check(u), self.space.check(v, "v"))

    @outside_inference
    def hessian(self, u: Tensor, *params: Parameter) -> Tensor:
        """The derivative of the residual as `sparse_csr` "*b N N", dofs flattened node-major.

        Rows and columns of prescribed dofs are zero, with ones on the diagonal.
        """
        lowered = self.lower(params)
        return lowered.pattern.csr(lowered.matrix_values(self.space.check(u)))

    def __add__(self, other: "Functional") -> "Functional":
        """The sum of two functionals over one space; both get the same parameters."""
        if type(other) is not type(self) or other.space is not self.space:
            return NotImplemented
        if not isinstance(other.constraint, Free) and other.constraint is not self.constraint:
            if not isinstance(self.constraint, Free):
                raise ValueError("the two have different constraints; give both the same `Dirichlet`, or only one.")
            return other + self
        total = object.__new__(type(self))
        total.__dict__.update(self.__dict__ | {"terms": self.terms + other.terms})
        return total


class Energy(Functional):
    """J(u) = ∫ ψ(x, u, ∇u, *params) dx + Σ_tags ∫ g(x, u, n, *params) ds, of the constrained u.

    Args:
        space: the space of u.
        density: ψ, any differentiable expression in PyTorch. x is "… d", u "…" (vectors "… c"), ∇u "… d" ("… c d"); on
            a mixed space u and ∇u are tuples. Every operation must broadcast over leading axes.
        dirichlet: `Dirichlet` or `MeanZero`; `energy(u)` is J(dirichlet.apply(u)).
        boundary: {tag: g} with g(x, u, normal, *params); it gets one order of derivatives less than ψ.
        derivatives: highest derivative that ψ takes: 0, 1, or 2, which adds ∇∇u after ∇u (smooth spaces only). A pair
            (cells, boundary) sets both: g(x, u, ∇u, normal, *params) for 1.

    The value has the batch shape "*b" of u and the parameters together.

    Raises:
        ValueError: unknown tags, or second derivatives on a Lagrange space.
    """

    @outside_inference
    def __call__(self, u: Tensor, *params: Parameter) -> Tensor:
        lowered = self.lower(params)
        value = lowered.value(self.space.check(u))
        check_finite(value, u, params, lowered)
        return value


class WeakForm(Functional):
    """Find u with a(u; v) = ∫ form(x, u, ∇u, v, ∇v, *params) dx + boundary terms = 0 for all v.

    The form must be linear in v and ∇v. For operators without an energy: advection, non-symmetric couplings.

    Args:
        space, dirichlet, boundary: as for `Energy`; boundary forms are g(x, u, v, normal, *params).
        form: the integrand; on mixed spaces u, ∇u, v and ∇v are tuples.
    """

    linear_in_test = True


def check_finite(value: Tensor, u: Tensor, params: Sequence[Any], lowered: Lowered) -> None:
    """Raise where an energy is not finite, naming the argument to blame. Skipped on a GPU, where it would wait."""
    if value.is_cuda or torch.compiler.is_compiling():
        return
    try:
        if bool(torch.isfinite(value).all()):
            return
    except RuntimeError:  # under `torch.vmap` values cannot be looked at
        return
    for name, tensor in [("u", u)] + [(f"parameter {i}", made_of(p)) for i, p in enumerate(params)]:
        if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            bad = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
            raise ValueError(
                f"{name} holds {float(tensor.detach()[tuple(bad)])}" + (f" at index {bad}." if bad else ".")
            )
    for term in lowered.terms:
        for i, parameter in enumerate(term.params):
            if isinstance(parameter, NodalValues):
                continue
            bad = ~torch.isfinite(torch.atleast_2d(torch.as_tensor(parameter.value)))
            if bool(bad.any()):
                cell, q = torch.nonzero(bad)[0][len(parameter.batch) :][:2].tolist()
                raise ValueError(f"parameter {i} is not finite at x = {term.geometry.points[cell, q].tolist()}.")
    raise ValueError(
        f"the energy is {float(value.detach()[~torch.isfinite(value)].flatten()[0])}: the density is not finite for "
        "finite arguments. Look for logarithms, roots or divisions outside their domain."
    )


def made_of(parameter: Any) -> Any:
    """The tensor that a number, tensor, constant, field or gradient is made of; anything else as it is."""
    if isinstance(parameter, int | float):
        return torch.tensor(float(parameter))
    if isinstance(parameter, Constant):
        return parameter.value
    function = parameter.function if isinstance(parameter, Gradient) else parameter
    return function.values if isinstance(function, Function) else parameter
