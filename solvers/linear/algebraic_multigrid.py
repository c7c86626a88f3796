"""Algebraic multigrid, for meshes without any structure: coarse spaces found from the matrix alone.

Smoothed aggregation makes a hierarchy (`solvers/linear/aggregation.py`). The cycles run here, on any device, for all
right-hand sides of a matrix at a time, in single precision inside conjugate gradients that are not.

On every level the matrix is scaled to a unit diagonal, S⁻¹ A S⁻¹. Jacobi smoothing then needs no diagonal, single
precision does not overflow, whatever the units; and −∇·ν∇ = √ν (−Δ + Δ√ν/√ν) √ν for smooth ν is scaled to −Δ and a
lower-order term (Concus and Golub, SIAM Journal on Numerical Analysis 10, 1973), so that a hierarchy made for one
coefficient serves others. Fixed dofs have rows and columns of zeros, which no part of a cycle ever fills.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.support.arithmetic import norm
from fem.support.checks import check_integers, check_numbers
from solvers.linear.aggregation import Aggregation, MatrixLevel, aggregate
from solvers.linear.assembled import Assembled
from solvers.linear.conjugate_gradients import CG, PreparedCG, check_global_unknowns
from solvers.linear.cycle import v_cycle
from solvers.operators.system import System
from solvers.operators.workspace import workspace_of

OLDER = 3  # hierarchies of earlier systems that a space keeps
SLOWER = 1.5  # a hierarchy of another matrix is given up after so many times its own number of iterations, and 5 more


@dataclass(frozen=True)
class AlgebraicMultigrid:
    """Conjugate gradients preconditioned by one V-cycle of algebraic multigrid; or that cycle, for `CG` to use.

    As a linear method it keeps the hierarchies it made last on each space, and takes them for the next matrix as well:
    training, time steps and Newton steps pay the set-up once. An item whose conjugate gradients need more than 1.5
    times as many iterations per digit as the matrix that its hierarchy was made for, and 5 more, goes on with a
    hierarchy of its own. `CG(preconditioner=AlgebraicMultigrid())` makes one for every matrix it has not just met.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.

    Raises:
        ValueError: settings out of range; later, an operator that is not symmetric.
    """

    rtol: float | None = None
    max_iterations: int = 1_000

    def __post_init__(self):
        check_numbers("AlgebraicMultigrid", "a tolerance", optional=True, rtol=self.rtol)
        check_integers("AlgebraicMultigrid", max_iterations=self.max_iterations)

    def prepare(self, system: System) -> "PreparedAlgebraicMultigrid":
        check_global_unknowns(system)
        return PreparedAlgebraicMultigrid(system, self)

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        """r ↦ V r with a hierarchy of each item's very matrix."""
        check_served(system)
        return Cycle(system, Cycles(Assembled.of(system), lagged=False))


@dataclass(frozen=True, eq=False)
class Cycle:
    """r ↦ V r among the functions that the constraint of a system admits."""

    system: System
    cycles: "Cycles"

    def __call__(self, r: Tensor) -> Tensor:
        z = self.cycles(r)
        return z if self.system.holds_dofs_alone else self.system.form.linear_part(z)


@dataclass(frozen=True, eq=False)
class Given:
    """A preconditioner made already."""

    apply: Callable[[Tensor], Tensor]

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        return self.apply


class PreparedAlgebraicMultigrid(PreparedCG):
    """Conjugate gradients that replace a hierarchy of another matrix where it serves badly."""

    def __init__(self, system: System, method: AlgebraicMultigrid):
        check_served(system)
        self.cycles = Cycles(Assembled.of(system), lagged=True)
        super().__init__(system, CG(method.rtol, method.max_iterations, Given(Cycle(system, self.cycles))))

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """As for `CG`; where a first pass is late, a second one with new hierarchies starts from what it has left."""
        b, target = self.goal(rhs, atol)
        digits, most = self.digits(b, target), self.method.max_iterations
        limit = self.cycles.limit(digits)
        x, r, self.iterations, self.reduction = self.iterate(b, target, most if limit is None else min(limit, most))
        late = norm(r, len(self.system.batch)) > target
        if limit is None or not bool(late.any()):
            self.cycles.learn(self.iterations, digits)
            return x
        self.cycles.renew(late)
        more, _, iterations, reduction = self.iterate(r, target, most)
        self.cycles.learn(iterations, self.digits(r, target))
        self.iterations, self.reduction = self.iterations + iterations, self.reduction * reduction
        return x + more

    def digits(self, r: Tensor, target: Tensor) -> Float[Tensor, "*b"]:
        """Decimal digits that a residual is above its target, one at least."""
        found = (norm(r, len(self.system.batch)) / target).log10()
        return found.nan_to_num(1, posinf=16).clamp(min=1)


def check_served(system: System) -> None:
    """Raise where the operator is none that a hierarchy can be made for."""
    if not system.symmetric:
        raise ValueError("`AlgebraicMultigrid()` needs a symmetric operator, and a weak form has none; use `Direct()`.")
    for field in system.form.space.fields:
        if field.moments is not None:
            raise ValueError(
                "`AlgebraicMultigrid()` coarsens values at nodes, and knows not the kernels of div and curl; "
                f"{field.family} has moments as dofs. Use `Direct()`, or `CG()` where nothing but a mass is solved."
            )


class Cycles:
    """V-cycles for all items of a batch, one hierarchy for each distinct matrix; `lagged`: perhaps one of another."""

    def __init__(self, assembled: Assembled, lagged: bool):
        self.assembled = assembled
        space, pattern = assembled.space, assembled.pattern
        values = assembled.values.reshape(-1, len(pattern.column))
        if not bool(torch.isfinite(values).all()):
            values = values.nan_to_num(0, 0, 0)  # of items that have failed already
        diagonal = values[:, pattern.diagonal]
        usable = diagonal > 0
        if assembled.fixed is not None:
            usable &= ~assembled.fixed.expand(*assembled.batch, *space.shape).reshape(len(values), -1)
        self.values, self.scale = values, torch.where(usable, torch.where(usable, diagonal, 1).rsqrt(), 0)
        # Items of one matrix are neighbours, as a rule: each that differs from the one before begins a new group.
        starts = [i for i in range(len(values)) if i == 0 or not self.is_same(i, values[i - 1], self.scale[i - 1])]
        self.groups = [slice(*ends) for ends in zip(starts, [*starts[1:], len(values)], strict=True)]
        kept, self.hierarchies = workspace_of(assembled.owner).hierarchies, []
        for group in self.groups:
            self.hierarchies.append(self.hierarchy(group.start, [*self.hierarchies, *kept], lagged))
        self.levels = self.made_ready()

    def is_same(self, item: int, values: Tensor, scale: Tensor) -> bool:
        """Whether the item has that matrix up to round-off, which differs with the place in a batch."""
        tolerance = 1e3 * torch.finfo(scale.dtype).eps
        if self.values[item].shape != values.shape or not torch.allclose(
            self.scale[item], scale, rtol=tolerance, atol=0
        ):
            return False
        pattern = self.assembled.pattern
        difference = (self.values[item] - values) * scale[pattern.row] * scale[pattern.column]
        return float(difference.abs().max()) <= tolerance

    def hierarchy(self, item: int, kept: "list[Aggregation]", lagged: bool) -> "Aggregation":
        """One made for the item's very matrix, or one of the nearest if `lagged`, or else a new one."""
        values, scale = self.values[item], self.scale[item]
        for h in kept:
            if (lagged or not h.lagged) and self.is_same(item, h.values, h.scale):
                return h
        near = [h for h in kept if h.stages and h.rate and h.values.shape == values.shape] if lagged else []
        near = [h for h in near if torch.equal(h.scale > 0, scale > 0)]
        if not near:
            return aggregate(self.assembled, values, scale)
        nearest = min(near, key=lambda h: h.distance(values, scale))
        return nearest.with_matrix(self.assembled, values, scale)

    def made_ready(self) -> list[list[MatrixLevel]]:
        """Levels for the right-hand sides of each group; the space keeps these hierarchies, and a few earlier ones."""
        kept = workspace_of(self.assembled.owner).hierarchies
        older = [h for h in kept if h not in self.hierarchies and not h.lagged]
        kept[:] = [*self.hierarchies, *older[:OLDER]]
        pairs = zip(self.groups, self.hierarchies, strict=True)
        return [h.levels(group.stop - group.start) for group, h in pairs]

    def __call__(self, r: Tensor) -> Tensor:
        shape = (*self.assembled.batch, *self.assembled.space.shape)
        flat = r.expand(shape).reshape(len(self.values), -1)
        size = torch.linalg.vector_norm(flat, float("inf"), -1, keepdim=True)
        size = torch.where(size > 0, size, 1)
        parts = []
        for group, levels in zip(self.groups, self.levels, strict=True):
            largest = self.scale[group.start].max()  # which alone may leave the range of single precision
            scale = self.scale[group.start] / torch.where(largest > 0, largest, 1)
            b = flat[group] / size[group] * scale
            levels[0].b.copy_(b[0] if len(b) == 1 else b.mT)
            v_cycle(levels)
            x = levels[0].x.reshape(b.shape[1], -1).mT * (scale * largest)
            parts.append(x * (largest * size[group]))
        return torch.cat(parts).reshape(shape)

    def limit(self, digits: Float[Tensor, "*b"]) -> int | None:
        """Iterations after which items with a hierarchy of another matrix count as late; None where there is none."""
        lagged = [(g, h) for g, h in zip(self.groups, self.hierarchies, strict=True) if h.lagged]
        expected = [h.rate[0] * float(digits.flatten()[g].max()) for g, h in lagged]
        return int(SLOWER * max(expected)) + 5 if expected else None

    def renew(self, late: Bool[Tensor, "*b"]) -> None:
        """Give late items with a hierarchy of another matrix their own."""
        for k, (group, h) in enumerate(zip(self.groups, self.hierarchies, strict=True)):
            if h.lagged and bool(late.flatten()[group].any()):
                self.hierarchies[k] = self.hierarchy(group.start, [], lagged=False)
        self.levels = self.made_ready()

    def learn(self, iterations: Tensor, digits: Float[Tensor, "*b"]) -> None:
        """Note how many iterations a digit takes with hierarchies of the very matrix, at their first use."""
        rates = (iterations / digits).flatten()
        for group, h in zip(self.groups, self.hierarchies, strict=True):
            if not h.lagged and not h.rate and bool(rates[group].any()):
                h.rate.append(float(rates[group].max()))
