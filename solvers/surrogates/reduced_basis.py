"""Galerkin projection onto a few snapshots: the baseline that any network for a family of problems must beat.

Snapshots u₁, …, u_m are minimisers for some parameters; the leading left singular vectors Φ of their deviations from
the mean ū span the space in which later problems are solved (Quarteroni, Manzoni & Negri, Reduced Basis Methods, 2016):

    u = ū + Φc,    (ΦᵀAΦ) c = −Φᵀ J′(ū).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.support.checks import check_integers, check_kind, check_params
from fem.support.modes import outside_modes
from solvers.minimization import minimize
from solvers.operators.system import System


@dataclass(frozen=True, eq=False)
class ReducedBasis:
    """A quadratic energy on the span of a few functions; `basis(params)` is its minimiser there, batched.

    mean "*shape" has the prescribed values, and functions "k *shape" are zero there.
    """

    energy: Energy
    mean: Tensor
    functions: Tensor
    singular_values: Float[Tensor, "m"]

    def __repr__(self) -> str:
        return f"ReducedBasis({len(self.functions)} functions of shape {tuple(self.mean.shape)})"

    @classmethod
    @outside_modes
    @torch.no_grad()
    def of_snapshots(cls, energy: Energy, params: Sequence[Parameter], size: int | None = None) -> "ReducedBasis":
        """From the minimisers for a batch of parameters.

        Args:
            params: of the energy, in one batch of m items.
            size: how many functions are kept, at most m − 1, which is the default.

        Raises:
            ValueError: no batch of at least two items, or a size that it does not give.
        """
        check_kind("ReducedBasis.of_snapshots", "energy", energy, Energy, "an `Energy`")
        check_integers("ReducedBasis.of_snapshots", optional=True, size=size)
        u = minimize(energy, check_params("ReducedBasis.of_snapshots", params)).value
        if u.ndim != len(energy.space.shape) + 1 or len(u) < 2:
            raise ValueError(f"a reduced basis needs one batch of at least two snapshots; got u of {tuple(u.shape)}.")
        size = len(u) - 1 if size is None else size
        if size >= len(u):
            raise ValueError(f"{len(u)} snapshots give 1 to {len(u) - 1} functions; got size={size!r}.")
        mean = u.mean(0)
        _, values, functions = torch.linalg.svd((u - mean).flatten(1), full_matrices=False)
        return cls(energy, mean, functions[:size].unflatten(1, energy.space.shape), values)

    @outside_modes
    @torch.no_grad()
    def __call__(self, params: Sequence[Parameter] = ()) -> Tensor:
        """u "*b *shape" of the least energy among mean + Σ c function.

        Raises:
            ValueError: an energy that is not quadratic, or not convex on the span.
        """
        form = self.energy.discrete_form(check_params("ReducedBasis", params)).detach()
        system = System(form, self.mean)
        elsewhere = self.mean + torch.linspace(
            1, 2, self.energy.space.num_dofs, dtype=self.mean.dtype, device=self.mean.device
        ).view(self.mean.shape)
        if not system.same_matrix(System(form, elsewhere)):
            raise ValueError("a reduced basis is for quadratic energies; the Hessian of this one depends on u.")
        lead, shape = len(system.batch), self.energy.space.shape
        flat = self.functions.flatten(1)
        images = [
            form.hessian_product(self.mean, f).expand(*system.batch, *shape).flatten(lead) for f in self.functions
        ]
        matrix = torch.stack([image @ flat.mT for image in images], -2)
        right = -form.residual(self.mean).expand(*system.batch, *shape).flatten(lead) @ flat.mT
        factor, info = torch.linalg.cholesky_ex(matrix)
        if bool((info != 0).any()):
            raise ValueError("the energy is not convex on the reduced basis: are its coefficients positive?")
        c = torch.cholesky_solve(right[..., None], factor)[..., 0]
        return self.mean + (c @ flat).unflatten(-1, shape)
