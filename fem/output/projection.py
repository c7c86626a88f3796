"""L2 projection of fields and of expressions of them (stresses, fluxes, indicators) onto a function space.

    Σ_c ∫ φ_a φ_c dx w_c = ∫ φ_a ψ(x, u, ∇u) dx

The mass matrix is applied, not assembled, and solved by conjugate gradients on the system scaled to a unit diagonal,
whose condition does not grow with the mesh; twice, the second time for what the first left, so that small cells beside
large ones are as exact. Where functions are not shared between cells, each cell is solved by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.assembly import scatter_fluxes
from fem.forms.integrals import Integrand, integrand
from fem.forms.parameters import Parameter
from fem.mesh.geometry import Domain, Geometry
from fem.space.field import Function
from fem.space.gather_scatter import GatherScatter
from fem.space.space import FunctionSpace
from fem.support.arithmetic import norm, per_item, sum_of
from fem.support.checks import check_integers, check_kind
from fem.support.conjugate_gradients import conjugate_gradients
from fem.support.modes import outside_modes
from fem.support.portions import at_a_time
from fem.support.status import ConvergenceError
from fem.support.transforms import hidden, plainly, pulled_back, transformed

MAX_ITERATIONS = 10_000


@outside_modes
def project(
    V: FunctionSpace,
    value: Integrand,
    u: Tensor | Function | Sequence[Function] | None = None,
    params: Sequence[Parameter] = (),
    degree: int | None = None,
) -> Tensor:
    """Dofs "*b n" or "*b n c" of the function of V that is nearest in L2 to an expression of a field.

    Differentiable, to any order, in u, the parameters, the nodes and what the expression closes over.

    Args:
        V: where to: any space; the expression has as many components, flattened (`stress.flatten(-2)`).
        value: `lambda x, u, grad_u, *params: ...` at points; without u a callable of x, a field, its `gradient` or any
            other parameter of a density.
        u: dofs on V, a field `W.function(values)` on any space over the same mesh, or several, as for `integrate`.
        params: of the expression, whatever a density may be given.
        degree: of the quadrature; by default that of the finest of all spaces, at which functions of V are reproduced.

    Raises:
        ValueError: values that do not fit V or are not finite, fields over another mesh.
        ConvergenceError: the mass matrix is too far from positive definite; `.solution` are the dofs so far.
    """
    check_kind("project", "V", V, FunctionSpace, "a `FunctionSpace`")
    check_integers("project", 0, optional=True, degree=degree)
    at = integrand("project", V, value, u, params)
    if degree is None:
        given = u if isinstance(u, tuple | list) else [u, value]
        degree = max(f.quadrature_degree for f in [V, *(g.space for g in given if isinstance(g, Function))])
    domains, parts, weights = V.quadrature.domains(None, degree), [], []
    trailing = V.value_shape
    for domain in domains:
        geometry = V.quadrature.geometry(domain)
        points = geometry.points.shape[:2]
        point = at(domain, geometry)
        found = torch.as_tensor(point.value, dtype=V.dtype, device=V.device)
        shape = tuple(found.shape[found.ndim - point.rank :])
        if shape != trailing and found.ndim:
            raise ValueError(
                f"`project` onto {(*trailing, 'scalar')[0]} components needs values of shape {trailing} at each point; "
                f"got {shape}. `FunctionSpace(mesh, element, components=...)` has as many as it is told."
            )
        batch = found.shape[: found.ndim - point.rank - 2] if found.ndim else ()
        parts.append(scatter_fluxes(V, {0: found.expand(*batch, *points, *trailing)}, domain, geometry, tuple(batch)))
        weights.append(metric(V, geometry))
    rhs = sum_of(parts)
    rhs = rhs[..., None] if V.components is None else rhs
    if V.is_discontinuous:
        solution = solve_cells(V, domains, rhs, weights)
    else:
        mass = Mass(V, domains)
        solution = (
            plainly(lambda b, *w: (MassSolve.apply(mass, b, *w),), [rhs, *weights])[0]
            if transformed()
            else MassSolve.apply(mass, rhs, *weights)
        )
    assert isinstance(solution, Tensor)
    return solution[..., 0] if V.components is None else solution


def metric(V: FunctionSpace, geometry: Geometry) -> Float[Tensor, "e q"] | Float[Tensor, "e q s s"]:
    """w with ∫ u v = Σ_q w û v̂: the weights, and for vector fields under a Piola map u = F û times FᵀF."""
    w = geometry.weights.expand(geometry.points.shape[:2])
    if V.moments is None:
        return w
    F = V.moments.mapping.factor(0, geometry.inverse)
    return w[..., None, None] * (F.mT @ F)


def solve_cells(
    V: FunctionSpace, domains: Sequence[Domain], rhs: Float[Tensor, "*b n c"], weights: Sequence[Tensor]
) -> Float[Tensor, "*b n c"]:
    """M⁻¹ b cell by cell: dofs are numbered one cell after another."""
    found = []
    for domain, w in zip(domains, weights, strict=True):
        N, dofs = V.quadrature.table(domain, 0)[0, :, 0], V.quadrature.dofs(domain)
        for own, numbers in zip(*(t.split(at_a_time(N.shape[1] ** 2, N, roomy=True)) for t in (w, dofs)), strict=True):
            M = torch.einsum("qa,eq,qc->eac", N, own, N)
            found.append(torch.linalg.solve(M, rhs[..., numbers, :]).flatten(-3, -2))
    return torch.cat(found, -2)


@dataclass(frozen=True, eq=False)
class Mass:
    """The mass matrix Σ_q w_q φ_a(q) φ_c(q) of a space, as a function of the `metric` w on each domain."""

    space: FunctionSpace
    domains: Sequence[Domain]

    def at_points(self, v: Float[Tensor, "*b n c"]) -> list[Float[Tensor, "*b e c q s"]]:
        return [self.space.quadrature.to_points(v, domain, 0) for domain in self.domains]

    def product(self, v: Float[Tensor, "*b n c"], weights: Sequence[Tensor]) -> Float[Tensor, "*b n c"]:
        values = zip(self.at_points(v), weights, self.domains, strict=True)
        return sum_of(self.space.quadrature.from_points(weighted(t, w), d, 0) for t, w, d in values)

    def diagonal(self, weights: Sequence[Tensor]) -> Float[Tensor, "n 1"]:
        quadrature, parts = self.space.quadrature, []
        for domain, w in zip(self.domains, weights, strict=True):
            table, T = quadrature.table(domain, 0), quadrature.orientation(domain)
            if T is not None:
                local = torch.einsum("qsa,eqst,qtc->eac", table[0], w, table[0])
                local = (T.mT @ local @ T).diagonal(dim1=1, dim2=2)
            else:
                squares = table[:, :, 0].square()
                local = w @ squares[0] if len(squares) == 1 else torch.einsum("eq,eqa->ea", w, squares)
            parts.append(GatherScatter.sum(quadrature.cells(domain), local[..., None]))
        return sum_of(parts)

    def solve(self, rhs: Float[Tensor, "*b n c"], weights: Sequence[Tensor]) -> Float[Tensor, "*b n c"]:
        """M⁻¹ b to round-off."""
        lead, eps = rhs.ndim - 2, torch.finfo(rhs.dtype).eps
        scale = self.diagonal(weights).rsqrt()
        b = scale * rhs
        size = norm(b, lead)
        if not bool(torch.isfinite(size).all()):
            raise ValueError(
                "`project` got an expression that is not finite at some points, such as 0 / 0 where u = 0."
            )
        size = torch.where(size > 0, size, 1)
        b = b / per_item(size, b)
        x, r = torch.zeros_like(b), b.clone()
        apply = lambda p: scale * self.product(scale * p, weights)  # noqa: E731
        for _ in range(2):
            step, target = torch.zeros_like(b), eps * norm(r, lead)
            conjugate_gradients(apply, lambda r: r, step, r, torch.empty_like(b), target, MAX_ITERATIONS)
            x = x + step
            r = b - apply(x)
        wrong = ~(norm(r, lead) <= 100 * eps * (1 + norm(x, lead)))
        x = scale * x * per_item(size, x)
        if bool(wrong.any()):
            raise ConvergenceError(
                f"`project` did not solve for {int(wrong.sum())} of {wrong.numel()} items: what is left is "
                f"{float(norm(r, lead).max()):.1e} of the right-hand side. Functions of the space are linearly "
                "dependent, or nearly so; use a lower degree, or `Discontinuous`.",
                x,
            )
        return x


class MassSolve(torch.autograd.Function):
    """x = M(w)⁻¹ b: with λ = M⁻¹ x̄, b̄ = λ and w̄_q = −λ(q) x(q)."""

    @staticmethod
    def forward(ctx: Any, mass: Mass, rhs: Tensor, *weights: Tensor) -> Tensor:
        ctx.mass, x = mass, mass.solve(rhs, weights)
        ctx.save_for_backward(x, rhs, *weights)
        return x

    @staticmethod
    @outside_modes
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mass, (x, rhs, *weights), needed = ctx.mass, ctx.saved_tensors, ctx.needs_input_grad
        if hidden(grad):
            run = lambda b, *w: (MassSolve.apply(mass, b, *w),)  # noqa: E731
            return None, *pulled_back(run, [rhs, *weights], needed[1:], [grad])
        multiplier = MassSolve.apply(mass, grad, *weights)
        assert isinstance(multiplier, Tensor)
        if not any(needed[2:]):
            return None, multiplier, *[None] * len(weights)
        pairs = zip(mass.at_points(multiplier), mass.at_points(x), weights, strict=True)
        patterns = {2: "...ecqs,...ecqs->...eq", 4: "...ecqs,...ecqt->...eqst"}
        products = [(torch.einsum(patterns[w.ndim], a, b), w) for a, b, w in pairs]
        return None, multiplier, *[-p.reshape(-1, *w.shape).sum(0) for p, w in products]


def weighted(values: Float[Tensor, "*b e c q s"], w: Tensor) -> Float[Tensor, "*b e c q s"]:
    """Values at points times the metric there."""
    return values * w[:, None, :, None] if w.ndim == 2 else torch.einsum("...ecqs,eqst->...ecqt", values, w)
