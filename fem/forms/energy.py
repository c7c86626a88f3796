"""Energies and weak forms: integrals of a pointwise expression of x, u and ∇u, as differentiable functions of dofs.

The user writes the density at a point; everything else follows by differentiating the *density* at quadrature points:
the residual from its first derivatives, the Hessian from its second. Nothing differentiates twice through the gather.

Evaluation has two steps: `fem.forms.lowering` turns whatever lies outside (mesh nodes, parameters, prescribed values)
into tensors, and the discrete form (`fem.forms.discrete`) works on those alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fem.forms.constraints import Constraint, Free
from fem.forms.discrete import DiscreteForm
from fem.forms.lowering import discrete_form
from fem.forms.parameters import Parameter, PointValues, tensor_in
from fem.forms.term import Density, Term
from fem.mesh.geometry import check_side
from fem.space.facets.hanging import followers
from fem.space.field import Function, Gradient
from fem.space.space import AnySpace, Space
from fem.support.checks import check_kind, is_integer
from fem.support.modes import outside_modes
from fem.support.transforms import plainly, transformed

Summand = TypeVar("Summand", bound="Functional")


class Functional:
    """What energies and weak forms share: their space, terms and constraint, and evaluation by a discrete form."""

    linear_in_test = False
    reuse: Any = None  # what its last solve left for the next (`solvers.Reuse`)

    def __init__(
        self,
        space: AnySpace,
        density: Density,
        dirichlet: Constraint | None = None,
        boundary: Mapping[Any, Density] | None = None,
        derivatives: int | tuple[int, int] = 1,
        interior: Mapping[Any, Density] | None = None,
    ):
        kind = type(self).__name__
        check_kind(kind, "space", space, Space, "a `FunctionSpace` or `MixedSpace`")
        orders = derivatives if isinstance(derivatives, tuple) else (derivatives,)
        if len(orders) not in (1, 2) or not all(is_integer(order, 0) and order <= 2 for order in orders):
            raise ValueError(f"`{kind}(derivatives=...)` must be 0, 1 or 2, or a pair of them; got {derivatives!r}.")
        inner, outer = orders if len(orders) == 2 else (orders[0], max(orders[0] - 1, 0))
        if dirichlet is not None:
            check_kind(
                kind,
                "dirichlet",
                dirichlet,
                Constraint,
                "`Dirichlet(V, {...})`, `MeanZero(V)`, both joined by `&`, or None",
            )
            if dirichlet.space is not space:
                raise ValueError(f"`{kind}(dirichlet=...)` belongs to another space; make it on the one given here.")
        check_kind(kind, "boundary", boundary or {}, Mapping, "a mapping {tag: density} or None")
        check_kind(kind, "interior", interior or {}, Mapping, "a mapping {tag: density} or None")
        for name, tag in [("boundary", tag) for tag in boundary or {}] + [("interior", tag) for tag in interior or {}]:
            pair = isinstance(tag, tuple) and len(tag) == 2 and all(isinstance(name, str) for name in tag)
            if not isinstance(tag, str) and not pair:
                raise ValueError(f"`{kind}({name}=...)` takes facet tags, or pairs (facet tag, cell tag); got {tag!r}.")
        self.space = space
        self.constraint: Constraint = Free(space) if dirichlet is None else dirichlet
        check_hanging(self.constraint)
        self.terms: tuple[Term, ...] = ()
        for tag, integrand in ((None, density), *(boundary or {}).items()):
            if not callable(integrand):
                where = "" if tag is None else f" on {tag!r}"
                raise TypeError(f"`{kind}` needs a callable{where}; got {type(integrand).__name__}.")
            if tag is not None:
                check_side(space.mesh, tag)
                space.quadrature.domains(tag)  # unknown tags are told now, not at the first evaluation
            self.terms += (Term(integrand, tag, inner if tag is None else outer, self.linear_in_test),)
            self.terms[-1].check_arguments()
        for tag, integrand in (interior or {}).items():
            if not callable(integrand):
                raise TypeError(f"`{kind}(interior=...)` needs a callable on {tag!r}; got {type(integrand).__name__}.")
            space.quadrature.pairs(tag)
            self.terms += (Term(integrand, tag, max(inner, 1), self.linear_in_test, True),)
            self.terms[-1].check_arguments()
        for field in space.fields:
            if field.moments is not None and max(inner, outer) == 2:
                raise ValueError(
                    f"{field.family} functions have one derivative, the divergence or the curl, and no more."
                )
        smooth = min(f.continuity for f in space.fields)
        if max(inner, outer) == 2 and smooth < 1 and not interior:
            raise ValueError(
                "second derivatives need a basis with continuous first ones, and Lagrange elements have kinks between "
                "cells; use a spline space of degree 2 or more, a mixed form, or penalties on the kinks by `interior=`."
            )

    def discrete_form(self, params: Sequence[Parameter] = (), time: float | None = None) -> DiscreteForm:
        """The functional with these parameters as a function of the dofs alone, and of explicit tensors.

        `time` is that of prescribed values that change with it.

        Raises:
            ValueError, TypeError: a parameter that does not fit the space (its position named).
        """
        for term in self.terms:
            term.check_arguments(len(params))
        return discrete_form(self.space, self.terms, self.constraint, params, time)

    @outside_modes
    def residual(self, u: Tensor, *params: Parameter) -> Tensor:
        """The first derivative, shaped like the dofs; zero at prescribed dofs."""
        return differentiated(self.discrete_form(params), DiscreteForm.residual, self.space.check(u))

    @outside_modes
    def hessian_product(self, u: Tensor, v: Tensor, *params: Parameter) -> Tensor:
        """The derivative of the residual at u in the direction v, without a matrix; zero at prescribed dofs."""
        u, v = self.space.check(u), self.space.check(v, "v")
        return differentiated(self.discrete_form(params), DiscreteForm.hessian_product, u, v)

    @outside_modes
    def hessian(self, u: Tensor, *params: Parameter) -> Tensor:
        """The derivative of the residual as `sparse_csr` "*b N N", dofs flattened node-major.

        Rows and columns of prescribed dofs are zero, with ones on the diagonal. What `MeanZero` and `RigidMotionFree`
        take out would fill the matrix, and is not taken out here.

        Raises:
            ValueError: ties, which would change its sparsity.
        """
        if hasattr(getattr(self.constraint, "dirichlet", self.constraint), "tied"):
            raise ValueError(
                f"`hessian` knows no ties between dofs; got {self.constraint}. `hessian_product(u, v, *params)` serves "
                "them."
            )
        form = self.discrete_form(params)
        return form.pattern.csr(form.matrix_values(self.space.check(u)))

    def __add__(self: Summand, other: Summand) -> Summand:
        """The sum of two functionals over one space; both get the same parameters."""
        if type(other) is not type(self) or other.space is not self.space:
            return NotImplemented
        if not isinstance(other.constraint, Free) and other.constraint is not self.constraint:
            if not isinstance(self.constraint, Free):
                raise ValueError(
                    "the two have different constraints; give both one and the same object, or only one of them any."
                )
            return other + self
        total = object.__new__(type(self))
        total.__dict__.update(self.__dict__ | {"terms": self.terms + other.terms, "reuse": None})
        return total

    def __repr__(self) -> str:
        integrands = ", ".join(f"{term.name} {term.takes or ''}".rstrip() for term in self.terms)
        held = "" if isinstance(self.constraint, Free) else f"\n  {self.constraint}"
        return f"{type(self).__name__}({integrands}\n  over {self.space}{held})"


class Energy(Functional):
    """J(u) = ∫ ψ(x, u, ∇u, *params) dx + Σ_tags ∫ g(x, u, n, *params) ds, of the constrained u.

    Args:
        space: the space of u.
        density: ψ, any differentiable expression in PyTorch. x is "… d", u "…" (vectors "… c"), ∇u "… d" ("… c d"); on
            a mixed space u and ∇u are tuples; of `RaviartThomas` functions "… d" the divergence "…" stands in the place
            of ∇u, of `Nedelec` the curl. Every operation must broadcast over leading axes.
        dirichlet: `Dirichlet` or `MeanZero`, or both by `&`; `energy(u)` is J(dirichlet.apply(u)).
        boundary: {tag: g} with g(x, u, normal, *params); it gets one order of derivatives less than ψ. Facets inside
            the domain must say their side, {(tag, cell tag): g}: seen from the cells with that tag, out of which the
            normal points.
        derivatives: highest derivative that ψ takes: 0, 1, or 2, which adds ∇∇u after ∇u (smooth spaces only). A pair
            (cells, boundary) sets both: g(x, u, ∇u, normal, *params) for 1.
        interior: {tag: h} with h(x, u, ∇u, normal, size, *params) on facets between two cells, "" all of them. u, ∇u
            and parameters that may jump there (one value per cell, gradients) have two values, `u.minus`, `u.plus`,
            with `jump(u)` = plus − minus and `average(u)`; the normal points from minus to plus, which is the
            higher-numbered cell; for {(tag, cell tag): h} minus is the cell with that tag. `size` "f 1" is the
            diameter of the facet, in one dimension the mean length of both cells.

    The value has the batch shape "*b" of u and the parameters together.

    Raises:
        ValueError: unknown tags, facets inside the domain whose side is not said, or second derivatives on a Lagrange
            space.
    """

    @outside_modes
    def __call__(self, u: Tensor, *params: Parameter) -> Tensor:
        form = self.discrete_form(params)
        value = form.value(self.space.check(u))
        check_finite(value, u, params, form)
        return value


class WeakForm(Functional):
    """Find u with a(u; v) = ∫ form(x, u, ∇u, v, ∇v, *params) dx + boundary terms = 0 for all v.

    The form must be linear in v and ∇v. For operators without an energy: advection, non-symmetric couplings.

    Args:
        space, dirichlet, boundary, interior: as for `Energy`; boundary forms are g(x, u, v, normal, *params), interior
            ones h(x, u, ∇u, v, ∇v, normal, size, *params).
        form: the integrand; on mixed spaces u, ∇u, v and ∇v are tuples.
    """

    linear_in_test = True

    def __init__(
        self,
        space: AnySpace,
        form: Density,
        dirichlet: Constraint | None = None,
        boundary: Mapping[Any, Density] | None = None,
        derivatives: int | tuple[int, int] = 1,
        interior: Mapping[Any, Density] | None = None,
    ):
        super().__init__(space, form, dirichlet, boundary, derivatives, interior)


def differentiated(form: DiscreteForm, derivative: Callable[..., Tensor], *dofs: Tensor) -> Tensor:
    """A derivative of a form at some dofs, by plain reverse mode whatever transformation of PyTorch is under way."""
    if not transformed():
        return derivative(form, *dofs)
    k = len(dofs)
    return plainly(lambda *t: (derivative(form.with_tensors(t[k:]), *t[:k]),), [*dofs, *form.tensors()])[0]


def check_hanging(constraint: Constraint) -> None:
    """Raise where continuous functions would jump at hanging nodes."""
    space = constraint.space
    if space.mesh.topology.hanging is None:
        return
    tied = getattr(getattr(constraint, "dirichlet", constraint), "tied", None)
    parts = [None] * len(space.fields) if tied is None else space.split(tied)
    for field, own in zip(space.fields, parts, strict=True):
        if field.continuity < 0 and not field.is_discontinuous:
            raise ValueError(
                f"nodes of this mesh hang on larger cells, across which {field.family} knows no ties; use Lagrange or "
                "discontinuous elements, or a mesh without hanging nodes."
            )
        nodal = field.is_nodal and field.continuity >= 0
        if nodal and (own is None or not bool(own[followers(field).nodes].all())):
            raise ValueError(
                "nodes of this mesh hang on larger cells, where functions of the space would jump: "
                f"`{'' if tied is None else '… & '}hanging_nodes(V)` among the constraints ties them, and "
                "`hanging_nodes(V) & Dirichlet(V, {...})` prescribes values too."
            )


def check_finite(value: Tensor, u: Tensor, params: Sequence[Any], form: DiscreteForm) -> None:
    """Raise where an energy is not finite, naming the argument to blame. Skipped on a GPU, where it would wait."""
    if value.is_cuda or torch.compiler.is_compiling():
        return
    try:
        if bool(torch.isfinite(value).all()):
            return
    except RuntimeError:  # under `torch.vmap` values cannot be looked at
        return
    numbers = [
        torch.tensor(float(p), dtype=torch.float64, device="cpu") if isinstance(p, int | float) else tensor_in(p)
        for p in params
    ]
    for name, tensor in [("u", u)] + [(f"parameter {i}", p) for i, p in enumerate(numbers)]:
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            bad = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
            raise ValueError(
                f"{name} holds {float(tensor.detach()[tuple(bad)])}" + (f" at index {bad}." if bad else ".")
            )
    for integral in form.integrals:
        for i, parameter in enumerate(integral.params):
            if isinstance(parameter, Function | Gradient):
                continue
            found = parameter.value if isinstance(parameter, PointValues) else tensor_in(parameter)
            bad = ~torch.isfinite(
                torch.as_tensor(parameter if found is None else found, dtype=u.dtype, device=u.device)
            )
            if bool(bad.any()):
                place = [0, 0]
                if isinstance(parameter, PointValues) and bad.ndim:
                    place = torch.nonzero(bad)[0][len(parameter.batch) :][:2].tolist()
                x = integral.geometry.points[tuple(place)].tolist()
                raise ValueError(f"parameter {i} is not finite at x = {x}.")
    raise ValueError(
        f"the energy is {float(value.detach()[~torch.isfinite(value)].flatten()[0])}: the density is not finite"
        f"{form.detach().where_not_finite(u.detach())} for finite arguments. Look for logarithms, roots or divisions "
        "outside their domain, and for det F ≤ 0 at finite strain."
    )
