"""Solve, find where the error is, refine there: until the error is as small as asked for."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.forms.constraints import Free
from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.mesh.mesh import Mesh
from fem.space.space import AnySpace
from fem.support.arithmetic import dot
from fem.support.checks import check_callable, check_flags, check_integers, check_kind, check_numbers
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError
from fem.support.transforms import transformed
from solvers.adaptation.estimate import Goal, Problem, estimated, taken_along
from solvers.certificates.certificate import Certificate, certify
from solvers.minimization import Method, minimize
from solvers.solution import Solution


@dataclass(frozen=True, eq=False)
class Cycle:
    """One mesh on the way: its unknowns and cells, the error "*b", and that relative to what it is the error of.

    guaranteed: whether `error` is an upper bound; else it is an estimate.
    """

    unknowns: int
    cells: int
    error: Float[Tensor, "*b"]
    relative: Float[Tensor, "*b"]
    guaranteed: bool

    def __repr__(self) -> str:
        what = "at most" if self.guaranteed else "about"
        return f"{self.unknowns} unknowns: error {what} {float(self.relative.max()):.2e}"


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What `adapt` found.

    Attributes:
        value: dofs "*b *shape" on `space`, differentiable as `minimize` leaves them.
        solution: all that `minimize` said of the last mesh.
        history: a `Cycle` for every mesh, the last one included.
        certificate: of the value, where a guaranteed bound is at hand, else None.
        converged: whether the tolerance was met.
    """

    space: AnySpace
    solution: Solution
    history: tuple[Cycle, ...]
    certificate: Certificate | None
    converged: bool

    @property
    def value(self) -> Tensor:
        return self.solution.value

    @property
    def bound(self) -> Float[Tensor, "*b"] | None:
        """What ‖u − value‖ is at most in the energy norm; None where nothing guarantees it, as of goals."""
        return self.history[-1].error if self.history[-1].guaranteed else None

    @property
    def estimate(self) -> Float[Tensor, "*b"]:
        """About what ‖u − value‖ is, or the error of the goal: the bound, or an estimate that is none."""
        return self.history[-1].error

    def __repr__(self) -> str:
        steps = "".join(f"\n  {cycle}" for cycle in self.history)
        return f"Adaptation({'converged' if self.converged else 'not converged'}){steps}"


def adapt(
    build: Callable[[Mesh], Energy | tuple[Energy, Sequence[Parameter]]],
    mesh: Mesh,
    tol: float = 1e-2,
    *,
    goal: Goal | None = None,
    share: float = 0.5,
    max_cycles: int = 50,
    max_unknowns: int = 200_000,
    method: Method | None = None,
    throw: bool = True,
) -> Adaptation:
    """The minimiser of an energy on a mesh that is refined until ‖u − u_h‖ ≤ tol ‖u_h‖ in the energy norm.

    Where `certify` has an upper bound that is what has to meet the tolerance, and it is guaranteed as said there: u has
    the boundary values of u_h. Elsewhere it is an estimate (`solvers.adaptation.estimate`), and `bound` is None. Cells
    with a share of the squared error are refined, those with the largest parts of it (Dörfler, A convergent adaptive
    algorithm for Poisson's equation, 1996). The norm is that of the Hessian at u_h, boundary values included; each item
    of a batch has to meet the tolerance.

    Args:
        build: makes the energy over a mesh, or the energy and its parameters: `lambda mesh: Energy(FunctionSpace(mesh,
            Lagrange(2)), …)`; with `hanging_nodes(V)` where cells are not simplices.
        mesh: the first one.
        goal: Q(V, u) "*b", differentiable in u, for any space V like that of the energy, such as `lambda V, u:
            V.evaluate(u, point)[..., 0]`; then |Q(u) − Q(u_h)| ≤ tol |Q(u_h)| is aimed at, by an estimate that weighs
            errors by those of the dual solution.
        share: of the squared error, in (0, 1]; 1 refines every cell with an error.
        max_cycles, max_unknowns: give up there.
        method: as for `minimize`.
        throw: raise where the tolerance is not met; False returns what was reached.

    Raises:
        ConvergenceError: the tolerance was not met; what was reached is `.solution`.
        ValueError, TypeError: what `build` makes, or a setting, is not as it should be.

    Warns:
        UserWarning: what the bound of the last mesh warns of: see `Certificate.upper_bound`.
    """
    check_callable("adapt", "build", build, "a function from a mesh to an `Energy`")
    check_kind("adapt", "mesh", mesh, Mesh, "a `Mesh`")
    check_callable("adapt", "goal", goal, "a function of a space and dofs, or None", optional=True)
    check_numbers("adapt", "positive", tol=tol, share=share)
    check_integers("adapt", max_cycles=max_cycles, max_unknowns=max_unknowns)
    check_flags("adapt", throw=throw)
    if share > 1:
        raise ValueError(f"`adapt(share=...)` must lie in (0, 1]; got {share}.")
    if transformed():
        raise ValueError(
            "`adapt` looks at numbers, which `torch.func`, `torch.vmap` and forward differentiation hide; call it "
            "outside of them and differentiate `minimize` on its last mesh."
        )
    history: list[Cycle] = []
    before: tuple[AnySpace, Tensor] | None = None
    bounded = goal is None
    while True:
        problem = built(build, mesh)
        energy, params = problem
        initial = None if before is None else start(*before, energy.space)
        solution = minimize(energy, params, initial, method)
        u = solution.value.detach()
        certificate, told = certified(energy, u, params) if bounded else (None, [])
        bounded = certificate is not None
        if certificate is None:
            shares = estimated(problem, u, lambda mesh=mesh: built(build, mesh.refine()), goal)
            error = shares.norm(dim=-1) if goal is None else shares.square().sum(-1)
        else:
            shares, error = certificate.bound_indicator, certificate.upper_bound
        assert shares is not None
        assert error is not None
        size = norm_of(energy, u, params) if goal is None else goal(energy.space, u).detach().abs()
        relative = torch.where(size > 0, error / size, torch.where(error > 0, torch.inf, 0))
        history.append(Cycle(energy.space.num_dofs, mesh.num_cells, error, relative, bounded))
        # Nothing guarantees that the richer space sees anything on a first mesh: an estimate counts from the second on.
        converged, why = bool((relative <= tol).all()) and (bounded or len(history) > 1), ""
        if not converged:
            if not bool(shares.isfinite().all()):
                why = "the error is not finite: look at the coefficients, which must be positive"
            elif len(history) >= max_cycles:
                why = f"`max_cycles={max_cycles}` is reached"
            elif energy.space.num_dofs > max_unknowns:
                why = f"`max_unknowns={max_unknowns}` is passed"
        if not (converged or why):
            cells = marked(shares, share)
            before, mesh = (energy.space, u), mesh.refine(cells)
            continue
        for note in told:
            warnings.warn(note.message, stacklevel=2)
        answer = Adaptation(energy.space, solution, tuple(history), certificate, converged)
        if why and throw:
            kind = "bound" if bounded else "estimate"
            raise ConvergenceError(
                f"`adapt(tol={tol:g})`: {why}. The {kind} of the error is {float(relative.max()):.2e}, relative, with "
                f"{energy.space.num_dofs} unknowns after {len(history)} cycles; `throw=False` returns it.",
                answer,
            )
        return answer


def built(build: Callable[[Mesh], Any], mesh: Mesh) -> Problem:
    """The energy over a mesh and its parameters."""
    found = build(mesh)
    energy: Any = found[0] if isinstance(found, tuple) and len(found) == 2 else found
    params: Any = found[1] if energy is not found else ()
    check_kind("adapt", "build", energy, Energy, "a function that returns an `Energy`, or one with its parameters")
    if energy.space.mesh is not mesh:
        raise ValueError("`adapt(build=...)` must make its space over the mesh that it is given.")
    return energy, params


def start(coarse: AnySpace, u: Tensor, fine: AnySpace) -> Tensor | None:
    """Where to start from on the next mesh: at the last solution, if values at nodes tell it."""
    nodal = all(V.is_nodal and V.continuity >= 0 for V in (*coarse.fields, *fine.fields))
    return taken_along(coarse, u, fine) if nodal else None


def certified(
    energy: Energy, u: Tensor, params: Sequence[Parameter]
) -> tuple[Certificate | None, list[warnings.WarningMessage]]:
    """The certificate of u, if it holds a guaranteed bound, and what it warns of, for the last mesh to say."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            certificate = certify(energy, u, params)
        except ValueError:  # no quadratic energy, ties, terms between cells: `certify` says which
            return None, []
        return (None, []) if certificate.upper_bound is None else (certificate, told)


@outside_modes
@torch.no_grad()
def norm_of(energy: Energy, u: Tensor, params: Sequence[Parameter]) -> Float[Tensor, "*b"]:
    """‖u‖ in the norm of the Hessian at u, boundary values included."""
    form = energy.discrete_form(params).detach()
    batch, full = form.constrained(u)
    free = replace(form, constraint=Free(energy.space), data=None)
    return dot(full, free.hessian_product(full, full), len(batch)).clamp(min=0).sqrt()


def marked(shares: Float[Tensor, "*b e"], share: float) -> Int[Tensor, "k"]:
    """As few cells as have the given share of the squared error, items of a batch counting alike; or all."""
    squares = shares.square().reshape(-1, shares.shape[-1])
    squares = (squares / squares.sum(-1, keepdim=True).clamp(min=torch.finfo(squares.dtype).tiny)).sum(0)
    largest, order = squares.sort(descending=True, stable=True)
    reached = largest.cumsum(0)
    count = int((reached < share * reached[-1]).sum()) + 1
    return order[:count] if float(reached[-1]) > 0 else order
