"""How far a prediction is from the minimiser of its energy, from one multigrid cycle; and cycles until it is close.

For a quadratic energy with Hessian A the energy gap of any v is J(v) − J(u_h) = ½‖e‖², with e = u_h − v, A e = r the
negative residual, and ‖e‖² = eᵀAe = rᵀA⁻¹r. With a symmetric cycle B in the place of A⁻¹ the spectrum of E = 1 − BA
lies between 0 and a contraction δ < 1, since coarse operators are Galerkin products. From A⁻¹ = Σ Eᵏ B

    t₀² / (t₀ − t₁) ≤ ‖e‖² ≤ t₀ + t₁ / (1 − δ),    t₀ = rᵀBr,    t₁ = (r − A B r)ᵀ B r.

On the left stands what the best step along B r takes off, ‖B r‖² being t₀ − t₁: at least t₀ + t₁, and all of it where e
is one mode of BA, such as the slowest, which iterations leave for the last. Conjugate gradients preconditioned by B
know t₀ of each of their iterates, so the answer costs nothing more there.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.constraints.rigid_motion import RigidMotionFree
from fem.constraints.ties import ties_of
from fem.forms.constraints import Free
from fem.forms.derivatives import derivative_transposed, differentiable
from fem.forms.energy import Energy
from fem.forms.lowering import cell_integrals
from fem.forms.parameters import Parameter
from fem.space.space import FunctionSpace
from fem.support.arithmetic import dot, norm, per_item, sum_of
from fem.support.checks import check_kind, check_params
from fem.support.conjugate_gradients import conjugate_gradients
from fem.support.modes import outside_modes
from fem.support.transforms import transformed
from solvers.certificates.enrichment import next_degree
from solvers.certificates.equilibration import FluxBound, flux_bound
from solvers.certificates.fine_quadrature import data_jump, fine_degrees, tested
from solvers.data_checks import check_tensors
from solvers.linear.choice import default_linear
from solvers.linear.conjugate_gradients import ritz_values
from solvers.operators.system import LinearMethod, Preconditioner, System

NOT_CONVEX = "the energy is not convex: is a coefficient negative or zero somewhere?"
JUMPS = (
    "data vary inside cells more than quadrature sees; refine the mesh there, or let edges of cells follow the jumps"
)
CONTRADICTION = 1e-3  # of bounds that quadrature explains; rounding makes less
STEPS = 8  # of the iteration for δ: it comes from below, so a tenth of what is missing to 1 is added


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far v is from the minimiser u_h of a quadratic energy, item by item.

    Beside it, when asked for, bounds of the true error ‖v − u‖, u being the exact solution: `lower_bound` and, where a
    flux is at hand, `upper_bound`.

    bracket: what ‖v − u_h‖ lies between, in the energy norm; its upper end trusts an estimate of the contraction δ.
    energy_error: its lower end as one number, t₀ / √(t₀ − t₁): never above the truth, but for rounding. Within a few
        per cent of it for most v, such as a network's; a quarter below and more for what cycles have corrected, as by
        `predict`, because what is left then is what a cycle does not see. Rely on the bracket there.
    relative: the same relative to ‖u_h‖.
    contraction: δ.
    """

    energy_error: Float[Tensor, "*b"]
    relative: Float[Tensor, "*b"]
    bracket: tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]
    contraction: float
    _cells: Callable[[], Tensor] = field(repr=False)
    _bound: Callable[[], FluxBound | None] = field(repr=False)
    _enriched: Callable[[], Tensor] = field(repr=False)

    def __repr__(self) -> str:
        low, high = (f"{float(end.max()):.3e}" for end in self.bracket)
        which = f"worst of {self.relative.numel()} items: " if self.relative.ndim else ""
        relative = float(self.relative.max())
        return (
            f"Certificate({which}energy error between {low} and {high}; relative from {relative:.3e} on, low ends "
            "being estimates that are up to a quarter low after `predict`)"
        )

    @property
    def gap(self) -> Float[Tensor, "*b"]:
        """J(v) − J(u_h), estimated."""
        return 0.5 * self.energy_error.square()

    @cached_property
    def indicator(self) -> Float[Tensor, "*b e"]:
        """Where the error is: the energy norm in each cell of the best step along B r. Computed when asked for."""
        return self._cells()

    @cached_property
    def lower_bound(self) -> Float[Tensor, "*b"]:
        """What ‖u − v‖ is at least, u being the exact solution of the differential equation with v's boundary values.

        Guaranteed up to rounding: the energy that the correction of one cycle takes off in the next degree, or in the
        space itself (degree 3), integrated by two fine rules and lowered by what they disagree in, as they do where
        data jump inside cells; what is too small for either, less than about 1/50 of a cell on meshes of 100 cells and
        1/6 of one on large meshes, is not seen. For splines and mixed spaces it is `energy_error`. Computed when asked
        for.
        """
        return agreeing(self._enriched(), self.__dict__.get("upper_bound"))[0]

    @cached_property
    def upper_bound(self) -> Float[Tensor, "*b"] | None:
        """What ‖u − v‖ is at most, u being the exact solution with v's boundary values.

        Guaranteed up to rounding by an equilibrated flux, for data that fine rules see (as for `lower_bound`); costs
        the solution of a dual problem, so it is computed when asked for. None where no flux is at hand: see
        `solvers.certificates.equilibration.flux_bound`.

        Warns:
            UserWarning: most of it is what two fine rules disagree in, or it is below `lower_bound`; nan in that case.
        """
        if self._flux is None:
            return None
        total = self._flux.total
        if bool((self._flux.unknown > 0.5 * total).any()):
            warnings.warn(f"the upper bound is far above the error: {JUMPS}", stacklevel=3)
        return agreeing(self.__dict__.get("lower_bound"), total)[1]

    @cached_property
    def bound_indicator(self) -> Float[Tensor, "*b e"] | None:
        """Where the error is, discretisation and all: each cell's share η, with ‖u − v‖² ≤ Σ η² ≤ `upper_bound`²."""
        return None if self._flux is None else self._flux.in_cells

    @cached_property
    def _flux(self) -> FluxBound | None:
        return self._bound()


def agreeing(lower: Tensor | None, upper: Tensor | None) -> tuple[Any, Any]:
    """Bounds in their order, as far as both are known: nan for items where quadrature cannot be right."""
    if lower is None or upper is None:
        return lower, upper
    wrong = lower > (1 + CONTRADICTION) * upper
    if bool(wrong.any()):
        warnings.warn(f"the lower bound is above the upper one, so neither counts: {JUMPS}", stacklevel=4)
    return torch.where(wrong, torch.nan, lower.minimum(upper)), torch.where(wrong, torch.nan, upper.maximum(lower))


@outside_modes
@torch.no_grad()
def certify(
    energy: Energy, v: Tensor, params: Sequence[Parameter] = (), method: Preconditioner | LinearMethod | None = None
) -> Certificate:
    """How far v is from the minimiser of a quadratic energy: no solve, the cost of one multigrid cycle.

    Args:
        energy: quadratic in u and bounded from below; its constraint is applied to v first.
        v: dofs "*b *shape", any prediction.
        params: as for `energy(v, *params)`.
        method: what approximates A⁻¹ from below, symmetrically, or solves; by default `Multigrid()` on grids.

    Raises:
        ValueError: v or a parameter that is not finite, an energy that is not quadratic or not convex.
    """
    return Error("certify", energy, v, params, method).certificate()


class Error:
    """The error of v as something that cycles measure and reduce."""

    def __init__(
        self,
        call: str,
        energy: Energy,
        v: Tensor,
        params: Sequence[Parameter],
        method: Preconditioner | LinearMethod | None,
    ):
        check_kind(call, "energy", energy, Energy, "an `Energy`")
        if transformed():
            raise ValueError(
                f"`{call}` looks at numbers, which `torch.func`, `torch.vmap` and forward differentiation hide, and "
                "what it returns has no derivatives; call it outside of them."
            )
        if method is not None:
            wanted = "a preconditioner or linear method, `Multigrid()`, `AlgebraicMultigrid()`, `Direct()`, …, or None"
            check_kind(call, "method", method, Preconditioner | LinearMethod, wanted)
        v = energy.space.check(v, "v").detach()
        if not bool(torch.isfinite(v).all()):
            raise ValueError("`v` holds values that are not finite.")
        self.energy, self.params = energy, check_params(call, params)
        self.discrete = energy.discrete_form(self.params).detach()
        check_tensors(self.discrete)
        given, batch = tuple(v.shape[: v.ndim - len(energy.space.shape)]), tuple(self.discrete.batch)
        if 0 in (*given, *batch):
            raise ValueError("there is nothing to certify: the batch is empty.")
        if ties_of(energy.constraint) is not None or isinstance(energy.constraint, RigidMotionFree):
            raise ValueError(f"certificates know no ties and no free bodies; got {energy.constraint}.")
        if self.discrete.couples_neighbours:
            raise ValueError("certificates know no terms on interior facets; certify an energy without `interior=`.")
        if any(m != n and 1 not in (m, n) for m, n in zip(given[::-1], batch[::-1], strict=False)):
            raise ValueError(
                f"`v` is a batch {given} of fields and the parameters are a batch {batch}; they must match."
            )
        _, full = self.discrete.constrained(v)
        self.v, self.system = full.clone(), System(self.discrete, full)
        self.lead = len(self.system.batch)
        space = energy.space
        elsewhere = full + torch.linspace(1, 2, space.num_dofs, dtype=full.dtype, device=full.device).view(space.shape)
        if not self.system.same_matrix(System(self.discrete, elsewhere)):
            raise ValueError("certificates are for quadratic energies; the Hessian of this one depends on u.")
        if bool((self.system.diagonal <= 0).any()):
            raise ValueError(NOT_CONVEX)
        chosen = method or default_linear(energy.space, True, prod(self.system.batch))
        self.precondition: Callable[[Tensor], Tensor]
        if isinstance(chosen, LinearMethod) and not callable(getattr(chosen, "preconditioner", None)):
            prepared = chosen.prepare(self.system)
            if bool(prepared.indefinite.any()):
                raise ValueError(NOT_CONVEX)
            self.precondition = prepared.solve
        else:
            self.precondition = chosen.preconditioner(self.system)  # type: ignore[union-attr]
        self.free = replace(self.discrete, constraint=Free(energy.space), data=None)

    def residual(self) -> Tensor:
        """r = −J′(v) at free dofs."""
        return -self.system.project(self.discrete.residual(self.v))

    def size(self, u: Tensor) -> Float[Tensor, "*b"]:
        """‖u‖, boundary values included."""
        largest = u.abs().flatten(self.lead).amax(-1)  # in units of it no square underflows
        unit = u / per_item(torch.where(largest > 0, largest, 1), u)
        return largest * dot(unit, self.free.hessian_product(u, unit), self.lead).clamp(min=0).sqrt()

    @cached_property
    def contraction(self) -> float:
        """δ, the largest |1 − λ| over all items and eigenvalues λ of BA, by Lanczos' iteration."""
        generator = torch.Generator(self.v.device).manual_seed(0)
        x = torch.randn(self.v.shape, generator=generator, dtype=self.v.dtype, device=self.v.device)
        start = self.system.apply(self.system.project(x))
        values = ritz_values(self.system.apply, self.precondition, start, STEPS, self.lead)
        values = torch.where(norm(start, self.lead)[..., None] > 0, values, 1)
        if bool((values < -1e3 * torch.finfo(x.dtype).eps).any()):
            raise ValueError(NOT_CONVEX)
        found = float((1 - values).abs().max())
        return min(found + 0.1 * (1 - found), 1 - 1e-12)

    def cycle(self) -> tuple[Tensor, Float[Tensor, "*b"], Float[Tensor, "*b"]]:
        """B r, t₀ and t₁."""
        r = self.residual()
        e = self.precondition(r).clone()
        t = self.form(r, e)
        return e, t, t - self.form(e, self.system.apply(e))

    def form(self, a: Tensor, b: Tensor) -> Float[Tensor, "*b"]:
        """aᵀb, which is no less than zero where the energy is convex.

        Raises:
            ValueError: it is less, by more than rounding, or too small for the dtype.
        """
        found, sizes, info = dot(a, b, self.lead), (norm(a, self.lead), norm(b, self.lead)), torch.finfo(a.dtype)
        if bool(((found.abs() < info.tiny) & (sizes[0] > 0) & (sizes[1] > 0)).any()):
            raise ValueError(f"energies underflow in {str(a.dtype).removeprefix('torch.')}; scale the data.")
        rounding = 1e3 * info.eps * sizes[0] * sizes[1]
        if not bool((found >= -rounding).all()):
            raise ValueError(NOT_CONVEX)
        return found.clamp(min=0)

    def certificate(self) -> Certificate:
        e, t, rest = self.cycle()
        rest = rest.clamp(min=0)
        step = torch.where(t > rest, t / (t - rest), 0)
        e *= per_item(step, e)
        error = (step * t).sqrt()
        above = torch.maximum(error, (t + rest / (1 - self.contraction)).sqrt())
        size = self.size(self.v + e)
        relative = torch.where(size > 0, error / size, torch.where(error > 0, torch.inf, 0))
        later = lambda: self.in_cells(e), self.bound, lambda: self.enriched(error)
        return Certificate(error, relative, (error, above), self.contraction, *later)

    def reduce(self, tol: float, max_cycles: int) -> Tensor:
        """Conjugate gradients on v until t₀ / (1 − δ) ≤ (tol ‖v‖)², which holds for the error: cycles "*b"."""
        r = self.residual()
        goal = tol * self.size(self.v + self.precondition(r)) * (1 - self.contraction) ** 0.5
        apply, room = self.system.apply, torch.empty_like(r)
        count, turned = conjugate_gradients(apply, self.precondition, self.v, r, room, goal, max_cycles, energy=True)
        if bool(turned.any()):
            raise ValueError(NOT_CONVEX)
        return count

    def bound(self) -> FluxBound | None:
        return flux_bound(self.energy, self.v, self.params, self.jumps)

    @cached_property
    @outside_modes
    @torch.no_grad()
    def jumps(self) -> bool:
        """Whether data jump inside cells, as far as fine rules see it; not known of splines and mixed spaces."""
        space, terms = self.energy.space, self.energy.terms
        if not isinstance(space, FunctionSpace) or not space.is_lagrange or any(t.derivatives > 1 for t in terms):
            return False
        return data_jump(space, terms, self.params)

    @outside_modes
    @torch.no_grad()
    def enriched(self, error: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """rᵀe / ‖e‖ with e = B r in the space of the next degree, which is nearer to u; else in the space itself.

        Any e gives a bound, as long as both products are right. Where data jump they are made by fine rules: where two
        disagree, the bound stays below both by as much.
        """
        richer = next_degree(self.energy, self.v)
        own = self if richer is None else Error("certify", *richer, self.params, None)
        space = own.energy.space
        e, t, rest = own.cycle()
        if not self.jumps:
            return error if richer is None else torch.where(t > rest, t / (t - rest).sqrt(), 0)  # ‖e‖² = t₀ − t₁
        assert isinstance(space, FunctionSpace)
        batch = self.system.batch
        v, e = (x.expand(*batch, *space.shape) for x in (own.v, e))
        degrees = fine_degrees(space, prod(batch))
        (r, size), (s, other) = (tested(space, own.energy.terms, self.params, v, e, degree) for degree in degrees)
        work = torch.minimum(r, s) - (r - s).abs()
        size = torch.maximum(size, other) + (size - other).abs()
        found = torch.where((t > 0) & (size > 0), work.clamp(min=0) / size.sqrt(), 0)
        return torch.where(t > rest, found, 0)

    @torch.no_grad()
    def in_cells(self, e: Tensor) -> Float[Tensor, "*b e"]:
        """√(∫ over each cell of e's energy density), boundary terms with the cells they lie on."""
        batch, space = self.system.batch, self.energy.space
        found = e.new_zeros(*batch, space.mesh.num_cells)
        for integral in cell_integrals(space, self.energy.terms, self.params):
            slots, along = differentiable(integral.slots(torch.zeros_like(e))), integral.slots(e)
            with torch.enable_grad():
                fluxes = integral.fluxes(slots, batch, True)
                products = derivative_transposed(fluxes, slots, along, False)
            pairs = [
                (p * a).reshape(*a.shape[: self.lead + 2], -1)
                for p, a in zip(products, along, strict=True)
                if p is not None
            ]
            if pairs:
                per_cell = (sum_of(p.sum(-1) for p in pairs) * integral.geometry.weights).sum(-1)
                start, count = space.mesh.block_starts[integral.domain.block], per_cell.shape[-1]
                cells = integral.domain.cells
                own = torch.arange(count, device=e.device) if cells is None else cells
                found.index_add_(-1, start + own, per_cell)
        return found.clamp(min=0).sqrt()
