"""Eigenvalues and modes of a pair of quadratic energies: K u = λ M u, shift-invert Lanczos by ARPACK."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fem.constraints.ties import Ties, ties_of
from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.support.checks import check_integers, check_kind, check_numbers, check_params
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError, Status
from fem.support.threads import sharing_cores
from fem.support.transforms import plainly, transformed
from solvers.data_checks import check_tensors
from solvers.solution import Solution


@dataclass(frozen=True, eq=False)
class Eigenmodes:
    """The lowest modes of K u = λ M u.

    Attributes:
        values: λ, ascending; differentiable in what the energies depend on.
        modes: u, one in a row, ∫ of the mass's density over them ½ (uᵀ M u = 1), without gradient.
        residual: |K u − λ M u| / |λ M u|.
    """

    values: Float[Tensor, "k"]
    modes: Float[Tensor, "k *shape"]
    residual: Float[Tensor, "k"]

    def __repr__(self) -> str:
        values = ", ".join(f"{float(value):.6g}" for value in self.values[:4])
        more = ", …" if len(self.values) > 4 else ""
        return (
            f"Eigenmodes({len(self.values)} eigenvalues {values}{more}; modes {tuple(self.modes.shape)}, "
            f"residual ≤ {float(self.residual.max()):.2e})"
        )


@outside_modes
@sharing_cores
def eigenmodes(
    energy: Energy,
    mass: Energy,
    count: int = 6,
    params: Sequence[Parameter] = (),
    mass_params: Sequence[Parameter] = (),
    near: float = 0.0,
    above: float | None = None,
) -> Eigenmodes:
    """The modes with eigenvalues nearest to `near`, or the lowest ones above `above`, of

        K u = λ M u,    K and M the Hessians of `energy` and `mass` at u = 0,

    for quadratic energies such as ½ ∫ |∇u|² and ½ ∫ u² (λ the squared angular frequencies of a membrane). Prescribed
    dofs are held at zero; tied ones (`Periodic`) follow their masters, u = T w, with TᵀKT and TᵀMT. Eigenvalues
    differentiate once, as Rayleigh quotients λ = J(u) / M(u), whose derivative does not feel that of u: exact where an
    eigenvalue is simple; where several agree it belongs to the basis ARPACK chose.

    Args:
        energy, mass: over the same space; the mass without constraint or with the same.
        count: how many modes.
        near: what they should be close to; not an eigenvalue itself. 0 asks for the lowest of a definite energy.
        above: in place of `near`, what they should exceed; not an eigenvalue itself. A number between 0 and the first
            passes by the kernel of K however large it is, such as the gradients that a curl does not see.

    Raises:
        ValueError, TypeError: different spaces, a batch, too many modes, nothing to hold a singular K − near M, fewer
            modes above `above`; what is no energy or no setting.
        ConvergenceError: ARPACK gave up.
    """
    for name, value in (("energy", energy), ("mass", mass)):
        check_kind("eigenmodes", name, value, Energy, "an `Energy`")
    check_integers("eigenmodes", count=count)
    check_numbers("eigenmodes", "finite", near=near)
    check_numbers("eigenmodes", "finite", optional=True, above=above)
    if above is not None and near != 0:
        raise ValueError(f"`eigenmodes` takes `near` or `above`, not both; got near={near!r} and above={above!r}.")
    params, mass_params = check_params("eigenmodes", params), check_params("eigenmodes", mass_params, "mass_params")
    space = energy.space
    if mass.space is not space:
        raise ValueError("`eigenmodes(energy, mass)` needs energies over the same space object.")
    forms = energy.discrete_form(params), mass.discrete_form(mass_params)
    if not transformed():
        return Eigenmodes(*modes_of(energy, mass, forms, count, near, above))
    own = len(forms[0].tensors())

    def plain(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = forms[0].with_tensors(tensors[:own]), forms[1].with_tensors(tensors[own:])
        return modes_of(energy, mass, given, count, near, above)

    values, modes, residual = plainly(plain, [t for form in forms for t in form.tensors()])
    return Eigenmodes(values, modes.detach(), residual.detach())


def common_ties(energy: Energy, mass: Energy) -> Ties | None:
    """The ties that both follow: those of one of them, or of both alike."""
    found = [ties for J in (energy, mass) if (ties := ties_of(J.constraint)) is not None]
    if len(found) == 2 and found[0] is not found[1] and (found[0].matrix != found[1].matrix).nnz:
        raise ValueError(
            f"`eigenmodes` needs one and the same ties in energy and mass; got {found[0]} and {found[1]}. Give the "
            "mass no constraint."
        )
    return found[0] if found else None


def modes_of(
    energy: Energy,
    mass: Energy,
    forms: tuple[DiscreteForm, DiscreteForm],
    count: int,
    near: float,
    above: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, modes and residuals; the values differentiate."""
    from scipy.sparse import csr_array, eye_array
    from scipy.sparse.linalg import ArpackError, eigsh

    space = energy.space
    zero = torch.zeros(space.shape, dtype=space.dtype, device=space.device)
    for form in forms:
        check_tensors(form.detach())
    with torch.no_grad():
        pair = [form.pattern.csr(form.matrix_values(zero, raw=True)) for form in forms]
    if any(matrix.ndim != 2 for matrix in pair):
        raise ValueError(
            "`eigenmodes` takes one problem at a time; these parameters make a batch. Take its items in a loop."
        )
    free = np.ones(zero.numel(), dtype=bool)
    for J in (energy, mass):
        data = J.constraint.data()
        if data is not None and (J.constraint.fixed is None or bool((data != 0).any())):
            raise ValueError(
                "`eigenmodes` takes homogeneous Dirichlet values and ties as constraints, and no others; without "
                "`MeanZero` a `near` a little below zero finds the constants first."
            )
        if J.constraint.fixed is not None:
            free &= ~J.constraint.fixed.flatten().cpu().numpy()
    ties = common_ties(energy, mass)
    T = (csr_array(eye_array(zero.numel())) if ties is None else ties.matrix)[:, np.flatnonzero(free)]
    K, M = (
        T.T
        @ csr_array(
            (m.values().cpu().numpy(), m.col_indices().cpu().numpy(), m.crow_indices().cpu().numpy()), tuple(m.shape)
        )
        @ T
        for m in pair
    )
    if count >= K.shape[0]:
        raise ValueError(f"`eigenmodes(count={count})` needs 0 < count < {K.shape[0]}, the number of free dofs.")
    start = np.random.default_rng(0).standard_normal(K.shape[0])  # the same each time
    k, m = (abs(matrix.data).max(initial=0) or 1 for matrix in (K, M))  # in units of them nothing overflows
    K, M = K / k, M / m
    # Lanczos finds the largest 1 / (λ − σ): of the positive ones those of the lowest λ above σ.
    near, which = (near, "LM") if above is None else (above, "LA")
    try:
        values, vectors = eigsh(K.tocsc(), count, M.tocsc(), sigma=near * (m / k), which=which, v0=start)
    except (ArpackError, RuntimeError) as error:
        if "singular" in str(error):
            raise ValueError(
                f"K − {near:g} M is singular: {near:g} is an eigenvalue. Prescribe values, or pass another "
                + ("`near`, a little below zero for a free membrane." if above is None else "`above`, a little higher.")
            ) from error
        none, no_steps = zero.new_zeros(()), torch.zeros((), dtype=torch.int64, device=zero.device)
        nothing = Solution(zero, Status.MAX_ITERATIONS, no_steps, none, none, "ARPACK", no_steps, none + torch.nan)
        raise ConvergenceError(f"ARPACK found no {count} modes near {near:g}: {error}", nothing) from error
    order = np.argsort(values)
    values, vectors = values[order], vectors[:, order]
    found = int((values - near * (m / k) > 1e3 * np.finfo(float).eps).sum())  # those at it are found as round-off
    if above is not None and found < count:
        raise ValueError(
            f"`eigenmodes(above={above:g})`: {found} of {count} modes exceed it, others are at it or below. Ask for "
            "fewer, or pass a number that is no eigenvalue and has more above it: for curls, between 0 and the first."
        )
    left, right = K @ vectors, (M @ vectors) * values
    residual = np.linalg.norm(left - right, axis=0) / np.maximum(np.linalg.norm(right, axis=0), 1e-300)
    modes = torch.from_numpy(np.ascontiguousarray((T @ vectors).T) / m**0.5).to(zero).view(count, *space.shape)
    return forms[0].value(modes) / forms[1].value(modes), modes, torch.from_numpy(residual).to(zero)
