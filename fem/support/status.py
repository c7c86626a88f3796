"""How a solver or a fit ended, for every item of a batch, and the error that says so."""

from collections.abc import Container
from enum import Enum
from typing import Any


class Status(Enum):
    """How a solve or a fit ended; `str(status)` says what to do about it."""

    CONVERGED = "converged"
    MAX_ITERATIONS = (
        "the iteration limit was reached: raise `max_iterations` (of a fit also `projections`), start closer with "
        "`initial=`, or loosen `rtol`"
    )
    STALLED = (
        "no step reduces the energy or the residual further: start closer with `initial=`, or check that the "
        "density is smooth where the solution lies; in a fit with free knots raise `floor` or `starts`"
    )
    SINGULAR = (
        "the problem is singular: some change of u leaves every equation as it is. Prescribe values with `Dirichlet`, "
        "fix the mean of a pure Neumann problem with `MeanZero(V)`, that of the pressure of an enclosed flow with "
        "`Dirichlet(W, ...) & MeanZero(W, field=1)`, hold a free body by weak springs, `+ 1e-6 * stiffness * "
        "u.square().sum(-1)`, or add another term that sees that change; if only the "
        "Hessian at the start is to blame, start elsewhere with `initial=`"
    )
    UNBOUNDED = (
        "the energy has no lower bound: it keeps falling along a direction of negative curvature. Check the signs of "
        "the density; use `solve` if a saddle point is meant"
    )
    SADDLE = (
        "the stationary point is a saddle, not a minimum: start elsewhere with `initial=`, or use `solve` if a "
        "saddle point is meant"
    )
    NOT_FINITE = (
        "the energy, the loss or their derivatives are not finite at the iterate: scale the data, start elsewhere with "
        "`initial=` or take smaller steps, and look for logarithms, roots or divisions outside their domain"
    )
    BUDGET = "the budget of seconds or steps is used up: raise `seconds` or `steps`"

    def __str__(self) -> str:
        return self.value


class ConvergenceError(RuntimeError):
    """A solver did not reach its tolerance, or a fit failed; `.solution` holds what it has, a `Solution` or the fit."""

    def __init__(self, message: str, solution: Any):
        super().__init__(message)
        self.solution = solution


def flatten(status: Any) -> list[Status]:
    """All statuses of nested tuples, in order."""
    return [status] if isinstance(status, Status) else [s for part in status for s in flatten(part)]


def nest(statuses: list[Status], batch: tuple[int, ...]) -> Any:
    """A flat list of statuses as nested tuples of the batch shape."""
    if not batch:
        return statuses[0]
    step = len(statuses) // batch[0] if batch[0] else 0
    return tuple(nest(statuses[i * step : (i + 1) * step], batch[1:]) for i in range(batch[0]))


def worst(status: Any) -> Status:
    """`NOT_FINITE` before others, and then the first that is not `CONVERGED`."""
    found = [s for s in flatten(status) if s is not Status.CONVERGED]
    return Status.NOT_FINITE if Status.NOT_FINITE in found else found[0] if found else Status.CONVERGED


def first_failure(status: Any, fine: Container[Status] = (Status.CONVERGED,)) -> tuple[int, str] | None:
    """The first item whose status is none of the `fine` ones: its number, and what went wrong with how many."""
    statuses = flatten(status)
    failed = [i for i, s in enumerate(statuses) if s not in fine]
    if not failed:
        return None
    where = "" if isinstance(status, Status) else f"{len(failed)} of {len(statuses)} batch items (the first is "
    where += f"{failed[0]}): " if where else ""
    return failed[0], f"{where}{statuses[failed[0]]}"


def check_fit(call: str, fit: Any, throw: bool) -> Any:
    """The fit, unless an item of it failed (its numbers are not finite) and it is to `throw`.

    To be out of iterations, steps or seconds, or to find no better step, is no failure of a fit: what it holds is the
    best that was found, and its status says so.

    Raises:
        ConvergenceError: with the fit as `.solution`.
    """
    failure = first_failure(fit.status, set(Status) - {Status.NOT_FINITE}) if throw else None
    if failure is not None:
        raise ConvergenceError(f"`{call}`: {failure[1]}. `throw=False` returns the fit as it is.", fit)
    return fit
