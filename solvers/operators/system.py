"""The linear system of a Newton step: the Hessian of a discrete form at one state, some dofs fixed.

A linear method is a small frozen value whose `prepare(system)` gives something that solves for right-hand sides, with
the matrix or its transpose.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.constraints.fixed_dofs import FixedDofs
from fem.constraints.rigid_motion import RigidMotionFree
from fem.constraints.ties import Ties, ties_of
from fem.forms.assembly import element_matrices, flat_dofs
from fem.forms.constraints import Dirichlet, Free, MeanZero
from fem.forms.discrete import DiscreteForm, Hessian
from fem.support.arithmetic import norm
from solvers.operators.matrix_free import MatrixFree, without_matrix
from solvers.operators.periodic_grid import grid_of_form, held_dofs
from solvers.operators.stencil import Stencil, replaced_items
from solvers.operators.stencil_product import Product
from solvers.operators.tensor_operator import TensorOperator, has_factors
from solvers.operators.workspace import workspace_of


class System:
    """H(u) restricted to the dofs that are not `fixed` "*b *shape": zero rows and columns elsewhere."""

    def __init__(self, form: DiscreteForm, u: Tensor, fixed: Tensor | None = None, symmetric: bool = True):
        self.form, self.u, self.symmetric = form, u, symmetric
        self.batch = form.full_batch(u)
        self.fixed = form.constraint.fixed if fixed is None else fixed

    @cached_property
    def hessians(self) -> list[Hessian]:
        """The second derivative of each integral at u."""
        return self.form.hessians(self.u)

    def same_matrix(self, other: "System") -> bool:
        """Whether both have the same matrix: true between any two states of a quadratic energy."""
        if (self.fixed is None) != (other.fixed is None) or len(self.hessians) != len(other.hessians):
            return False
        if self.fixed is not other.fixed and not torch.equal(self.fixed, other.fixed):  # type: ignore[arg-type]
            return False
        return all(mine.equals(theirs) for mine, theirs in zip(self.hessians, other.hessians, strict=True))

    @cached_property
    def holds_dofs_alone(self) -> bool:
        """Whether the constraint does nothing but prescribe the dofs that are fixed, so that the others are free."""
        constraint, space = self.form.constraint, self.form.space
        if isinstance(constraint, Free | Dirichlet | FixedDofs):
            return True
        v = torch.linspace(1, 2, space.num_dofs, dtype=space.dtype, device=space.device).view(space.shape)
        held = v if constraint.fixed is None else v.masked_fill(constraint.fixed, 0)
        return torch.equal(constraint.project(v, self.form.data), held)

    @property
    def matrix_tensors(self) -> list[Tensor]:
        """The tensors, as the user gave them, that the matrix depends on."""
        return [t for h in self.hessians for t in h.tensors]

    def project(self, v: Tensor) -> Tensor:
        """Zero at fixed dofs, balanced where the mean is."""
        return self.masked(self.form.constraint.project(v, self.form.data))

    def masked(self, v: Tensor) -> Tensor:
        """Zero at those fixed dofs that the constraint does not fix already."""
        return v if self.fixed is None or self.fixed is self.form.constraint.fixed else v.masked_fill(self.fixed, 0)

    @torch.no_grad()
    def apply(self, v: Float[Tensor, "..."]) -> Tensor:
        """H v: by loops over cells or a stencil on grids, elsewhere by sparse products, item by item."""
        shape = self.form.space.shape
        v = self.form.linear_part(self.masked(v))
        if self.loop is not None:
            return self.project(self.loop(v))
        if self.tensor is not None:
            return self.project(self.tensor(v.expand(*self.batch, *shape)))
        if self.stencil is not None:
            grid, product = self.stencil.grid, self.product
            grid.pack(v.expand(*self.batch, *shape).reshape(grid.batch, -1, grid.components), product.x)
            product()
            return self.project(grid.unpack(product.y).reshape(*self.batch, *shape))
        flat = v.expand(*self.batch, *shape).reshape(len(self.matrices), -1)
        products = torch.stack([matrix @ x for matrix, x in zip(self.matrices, flat, strict=True)])
        return self.project(products.reshape(*self.batch, *shape))

    @cached_property
    @torch.no_grad()
    def loop(self) -> MatrixFree | None:
        """The Hessian without its matrix, where that serves better; None set here asks for the stencil all the same."""
        grid = grid_of_form(self.form, prod(self.batch)) if self.symmetric else None
        chosen = None if grid is None else without_matrix(self.hessians, grid, self.form.space.num_dofs)
        if grid is None or chosen is None:
            return None
        if len(chosen) == len(self.hessians):  # of a quadratic energy, nothing keeps the state alive
            self.u = self.u.new_zeros(()).expand(self.u.shape)
            blank = self.u.expand(*self.batch, *self.form.space.shape)
            chosen = [replace(h, u=blank) for h in chosen]
            self.hessians = list[Hessian](chosen)
        memory = workspace_of(self.form.space).buffers(self, "single")
        shape = (*self.batch, *self.form.space.shape)
        return MatrixFree(chosen, grid, shape, self.fixed, self.fixed_images, memory)

    @cached_property
    @torch.no_grad()
    def stencil(self) -> Stencil | None:
        """The matrices of energies over Lagrange spaces on grids, the identity at fixed dofs; None elsewhere.

        Ties that make the grid periodic have no part in it: the operator is Q A Q (`periodic_grid`).
        """
        grid = grid_of_form(self.form, prod(self.batch)) if self.symmetric else None
        if grid is None:
            return None
        stencil = Stencil.zeros(grid, self.u, workspace_of(self.form.space).buffers(self, "system"))
        for h in self.hessians:
            stencil.add(h)
        stencil.fix(self.fixed_images, 1.0)
        return stencil

    @cached_property
    @torch.no_grad()
    def tensor(self) -> TensorOperator | None:
        """The Hessian by sum factorisation, for splines on one patch."""
        if not self.symmetric or not has_factors(self.form):
            return None
        return TensorOperator(self.form.space, self.hessians, self.batch)

    @cached_property
    @torch.no_grad()
    def product(self) -> Product:
        """The stencil's product between two buffers of its own; the identity's for items that are not finite."""
        assert self.stencil is not None
        stencil = replaced_items(self.stencil, ~self.finite.flatten())
        return Product(stencil, stencil.buffer(), stencil.buffer())

    @cached_property
    def fixed_images(self) -> Bool[Tensor, "t k"]:
        """Fixed dofs in the layout of the stencil; of tied ones those that follow a prescribed one."""
        space, ties = self.form.space, ties_of(self.form.constraint)
        grid = grid_of_form(self.form, prod(self.batch))
        assert grid is not None
        fixed = self.fixed if ties is None else held_dofs(ties)
        fixed = None if fixed is None else fixed.expand(*self.batch, *space.shape)
        return grid.fixed_images(None if fixed is None else fixed.reshape(grid.batch, -1, grid.components), self.u)

    @cached_property
    def unseen_images(self) -> Bool[Tensor, "t k"] | None:
        """Dofs that are held because nothing is seen of them, in the layout of the stencil; None if there are none."""
        unseen, grid = getattr(self.form.constraint, "unseen", None), grid_of_form(self.form, prod(self.batch))
        if unseen is None or grid is None:
            return None
        images = torch.zeros(len(grid.types), grid.size, dtype=torch.bool, device=self.u.device)
        unseen = unseen.expand(*self.batch, *self.form.space.shape)
        return grid.pack(unseen.reshape(grid.batch, -1, grid.components), images)

    @cached_property
    def matrices(self) -> list[Tensor]:
        """The unconstrained matrix of each batch item in CSR."""
        pattern = self.form.pattern
        return [pattern.csr(values, short=True) for values in self.values.reshape(-1, self.values.shape[-1])]

    @cached_property
    def diagonal(self) -> Tensor:
        """The diagonal of H, ones at fixed dofs."""
        space = self.form.space
        if self.loop is not None:
            return self.loop.diagonal
        if self.stencil is not None:
            grid = self.stencil.grid
            return grid.unpack(grid.averaged(self.stencil.diagonal)).reshape(*self.batch, *space.shape)
        if self.tensor is not None:
            total = self.tensor.diagonal().reshape(*self.batch, space.num_dofs)
        elif "values" in vars(self) or not all(h.known for h in self.hessians):  # there, or cheaper than coefficients
            total = self.values[..., self.form.pattern.diagonal]
        else:
            total = self.u.new_zeros(*self.batch, space.num_dofs)
            for h in self.hessians:
                domain, geometry = h.integral.domain, h.integral.geometry
                own = h.integral.space
                local = element_matrices(own, h.coefficients, domain, geometry, self.batch, diagonal=True)
                index = flat_dofs(own, domain).flatten().expand(*self.batch, -1)
                total.scatter_add_(-1, index, local.flatten(-2))
        total = total.unflatten(-1, space.shape)
        return total if self.fixed is None else total.masked_fill(self.fixed, 1)

    @cached_property
    def values(self) -> Float[Tensor, "*b z"]:
        """CSR values of the unconstrained matrix."""
        return self.form.matrix_values(self.u, raw=True, hessians=self.hessians)

    @cached_property
    def finite(self) -> Bool[Tensor, "*b"]:
        """Whether all second derivatives of the density are finite, as told by the matrix where there is one."""
        if self.loop is not None:
            return self.loop.finite.reshape(self.batch)
        known = all(h.known for h in self.hessians)
        if "values" in vars(self) or not (known or self.stencil is not None):
            return torch.isfinite(self.values).all(-1)
        if not known and self.stencil is not None:
            flat = self.stencil.grid.shifted(self.stencil.data).unflatten(-1, (self.stencil.grid.batch, -1))
            return torch.isfinite(flat.sum((0, -1))).reshape(self.batch)
        finite = torch.ones(self.batch, dtype=torch.bool, device=self.u.device)
        for h in self.hessians:
            finite &= h.finite()
        return finite

    def unconstrained_directions(self) -> list[tuple[str, Bool[Tensor, "*b"]]]:
        """The constants that no dof holds and H does not see, in words and by item: why most problems are singular.

        As ∇1 = 0, H·1 has no contribution but those of ∂²ψ/∂s∂u for all slots s. Nothing but their cancellation is
        judged by a tolerance, so a support or a reaction may be as weak as it likes.
        """
        space, lead, found = self.form.space, len(self.batch), []
        held = self.form.constraint
        fixed = torch.zeros((), dtype=torch.bool, device=self.u.device) if self.fixed is None else self.fixed
        ties = ties_of(held)
        fixed = (fixed if ties is None else fixed & ~ties.tied).expand(*self.batch, *space.shape)
        for i, (field, own) in enumerate(zip(space.fields, space.split(fixed), strict=True)):
            shifted = isinstance(held, RigidMotionFree) or (isinstance(held, MeanZero) and held.field == i)
            shifted = shifted or field.moments is not None  # whose dofs are those of no constant
            for k in range(0 if shifted else field.components or 1):
                component = own if field.components is None else own[..., k]
                unseen = ~component.any(-1)
                if ties is not None:
                    unseen &= self.tied_alike(ties, i, k)
                if bool(unseen.any()):
                    product, size = [norm(v.masked_fill(fixed, 0), lead) for v in self.times_one(i, k)]
                    unseen &= product <= 1e3 * torch.finfo(size.dtype).eps * size
                which = "u" if len(space.fields) == 1 else f"field {i}"
                name = f"constants of {which}" if field.components is None else f"component {k} of {which}"
                found.append((name, unseen))
        return found

    def tied_alike(self, ties: Ties, i: int, k: int) -> bool:
        """Whether ties let component k of field i be a constant."""
        fields = [self.u.new_zeros(f.shape) for f in self.form.space.fields]
        fields[i][..., k if self.form.space.fields[i].components is not None else slice(None)] = 1
        one = self.form.space.join(fields)
        return torch.allclose(ties.follow(one), one)

    def times_one(self, i: int, k: int) -> tuple[Tensor, Tensor]:
        """H·1 for component k of field i, and the sum of its contributions by absolute value."""
        products, sizes = zip(*[h.times_constant(i, k) for h in self.hessians], strict=True)
        return self.form.join(products, self.u, self.batch), self.form.join(sizes, self.u, self.batch)


@runtime_checkable
class Prepared(Protocol):
    """A system made ready: `solve` gives x "*b *shape", zero at fixed dofs, and the items that failed "*b".

    Where H is indefinite x is the solution all the same if `exact`, else a direction of negative curvature.
    `iterations` and `reduction`, the last ‖r‖ over the first, are those of the last solve; None where none iterates.
    """

    exact: bool
    system: System
    singular: Tensor
    indefinite: Tensor

    @property
    def iterations(self) -> Tensor | None: ...

    @property
    def reduction(self) -> Tensor | None: ...

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor: ...


@runtime_checkable
class LinearMethod(Protocol):
    def prepare(self, system: System) -> Prepared: ...


@runtime_checkable
class Preconditioner(Protocol):
    """A frozen value that gives, for a system, a symmetric positive definite map r "*b *shape" ↦ z ≈ H⁻¹ r.

    z is zero at fixed dofs wherever r is.
    """

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]: ...
