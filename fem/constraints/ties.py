"""Ties between dofs, u_i = Σ_j c_ij u_j + g_i: the slaves i follow masters j, which are free or prescribed.

With T, the identity at free dofs and c at slaves, admissible functions are u = T w + g. A residual is gathered by Tᵀ,
so that a slave's share goes to its masters; a matrix becomes Tᵀ A T.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.constraints.composition import composed
from fem.forms.constraints import Constraint, Dirichlet, Free, MeanZero, data_at
from fem.forms.parameters import check_like
from fem.space.space import AnySpace, Space
from fem.support.arithmetic import common_batch
from fem.support.checks import check_kind, shown
from fem.support.modes import outside_modes
from fem.support.transforms import depends, mapped

Offset = Tensor | Callable[[], Tensor] | None  # given, or made anew whenever it is asked for


class Ties:
    """Some dofs follow others: u[dofs] = matrix · u + offset.

    Args:
        space: of all these dofs, which are counted flattened, components inmost; on mixed spaces field after field.
        dofs: the slaves "k", each once.
        matrix: the coefficients "k N", dense or sparse, zero in the columns of slaves.
        offset: "*b k", zero by default; differentiable.

    `Dirichlet(V, …) & Ties(V, …)` is both.

    Raises:
        ValueError: a slave that is given twice, is prescribed or is a master; shapes that do not fit; coefficients that
            need a gradient, which they would not get.
    """

    agreement = 1e-8  # by how much a tie may differ from another one of the same dof
    _parts: tuple["Ties", ...] = ()  # what it was made from by `&`, if it was

    def __init__(self, space: AnySpace, dofs: Any, matrix: Any, offset: Tensor | None = None):
        check_kind("Ties", "space", space, Space, "a `FunctionSpace` or `MixedSpace`")
        self.space, self.held = space, Free(space)
        slaves = torch.as_tensor(dofs, dtype=torch.int64, device=space.device).flatten()
        matrix = torch.as_tensor(matrix, device=space.device)
        if tuple(matrix.shape) != (len(slaves), space.num_dofs):
            raise ValueError(
                f"`Ties(matrix=...)` must be ({len(slaves)}, {space.num_dofs}): a row for each of the dofs, a column "
                f"for each of the space; got {tuple(matrix.shape)}."
            )
        if matrix.dtype != space.dtype:
            raise TypeError(
                f"`Ties(matrix=...)` is {matrix.dtype} but the space is {space.dtype}; convert one of them."
            )
        if depends(matrix):
            raise ValueError(
                "`Ties(matrix=...)` needs a gradient, but ties have no derivatives in their coefficients; give "
                "`matrix.detach()`. Offsets have them."
            )
        entries = matrix.to_sparse_coo().coalesce()
        (row, column), coefficient = entries.indices(), entries.values()
        self._tie(slaves, row, column, coefficient, offset)

    @classmethod
    def of(cls, space: AnySpace, slaves: Tensor, row: Tensor, column: Tensor, coefficient: Tensor) -> "Ties":
        """Ties by the entries of their matrix."""
        found = object.__new__(cls)
        found.space, found.held = space, Free(space)
        found._tie(slaves, row, column, coefficient, None)
        return found

    def _tie(self, slaves: Tensor, row: Tensor, column: Tensor, coefficient: Tensor, offset: Offset) -> None:
        kept = coefficient != 0
        self.slaves, self.row, self.column, self.coefficient = slaves, row[kept], column[kept], coefficient[kept]
        count, twice = self.space.num_dofs, len(slaves) - len(slaves.unique())
        if len(slaves) and not 0 <= int(slaves.min()) <= int(slaves.max()) < count:
            raise ValueError(f"`Ties(dofs=...)` must lie in [0, {count}); got {shown(slaves.tolist())}.")
        if twice:
            raise ValueError(f"`Ties(dofs=...)` must be different; {twice} of {len(slaves)} are given twice.")
        chained = torch.isin(self.column, slaves)
        if bool(chained.any()):
            raise ValueError(
                f"dof {int(self.column[chained][0])} is tied to others and has others tied to it; tie all of them to "
                "dofs that are free."
            )
        if not bool(torch.isfinite(self.coefficient).all()):
            raise ValueError("`Ties(matrix=...)` holds coefficients that are not finite.")
        check_kind(
            "Ties", "offset", offset, Tensor | Callable | None, "a tensor, a number for each of the dofs, or None"
        )
        if isinstance(offset, Tensor):
            self._check_offset(offset)
        self._offset = offset

    def _check_offset(self, offset: Tensor) -> None:
        if tuple(offset.shape[-1:]) != (len(self.slaves),):
            raise ValueError(
                f"`Ties(offset=...)` must be (..., {len(self.slaves)}), like the dofs; got {tuple(offset.shape)}."
            )
        check_like(self.space, offset, "`Ties(offset=...)`")
        if not mapped(offset) and not bool(torch.isfinite(offset).all()):
            raise ValueError("`Ties(offset=...)` holds numbers that are not finite.")

    @property
    def offset(self) -> Float[Tensor, "*b k"] | None:
        return self._offset if isinstance(self._offset, Tensor) or self._offset is None else self._offset()

    # -- what energies and solvers ask of a constraint -----------------------------------------------------------------

    @cached_property
    def tied(self) -> Bool[Tensor, "..."]:
        """True at slaves, of the space's shape."""
        found = torch.zeros(self.space.num_dofs, dtype=torch.bool, device=self.space.device)
        found[self.slaves] = True
        return found.view(self.space.shape)

    @property
    def fixed(self) -> Bool[Tensor, "..."]:
        """True at slaves and at prescribed dofs, of the space's shape."""
        return self._fixed

    @cached_property
    def _fixed(self) -> Tensor:
        return self.tied if self.held.fixed is None else self.tied | self.held.fixed

    @outside_modes
    def apply(self, u: Tensor) -> Tensor:
        """`u` with its slaves, and what else is prescribed, as the constraint has them."""
        return self.insert(self.space.check(u), self.data())

    @property
    def time_dependent(self) -> bool:
        return getattr(self.held, "time_dependent", False)

    def data(self, time: float | None = None) -> Tensor | None:
        """Prescribed values, and offsets at slaves."""
        held, offset = data_at(self.held, time), self.offset
        if offset is None:
            return held
        full = offset.new_zeros(*offset.shape[:-1], self.space.num_dofs).index_copy(-1, self.slaves, offset)
        full = full.unflatten(-1, self.space.shape)
        return full if held is None else full + held

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        return self.follow(self.held.insert(u, data), data if self._offset is not None else None)

    def linear(self, v: Tensor, data: Tensor | None) -> Tensor:
        """The linear part of `insert`."""
        return self.follow(self.held.linear(v, data), None)

    def follow(self, u: Tensor, offset: Tensor | None = None) -> Tensor:
        """`u` with its slaves where their masters put them, and nothing else."""
        shape, dim = self.space.shape, len(self.space.shape)
        shapes = [t.shape[: t.ndim - dim] for t in (u, offset) if t is not None]
        batch = common_batch(*shapes)
        flat = u.expand(*batch, *shape).flatten(-dim)
        share = flat.index_select(-1, self.column) * self.coefficient
        values = flat.new_zeros(*batch, len(self.slaves)).index_add(-1, self.row, share)
        if offset is not None:
            values = values + offset.flatten(-dim).index_select(-1, self.slaves)
        return flat.index_copy(-1, self.slaves, values).unflatten(-1, shape)

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        return self.held.project(self._gather(residual, self.coefficient), data)

    def sized(self, magnitude: Tensor) -> Tensor:
        """Contributions by absolute value, those of slaves with their masters."""
        return self._gather(magnitude, self.coefficient.abs())

    def _gather(self, residual: Tensor, coefficient: Tensor) -> Tensor:
        shape = self.space.shape
        flat = residual.flatten(-len(shape))
        share = flat.index_select(-1, self.slaves).index_select(-1, self.row) * coefficient
        return flat.index_fill(-1, self.slaves, 0).index_add(-1, self.column, share).unflatten(-1, shape)

    @cached_property
    def matrix(self) -> Any:
        """T "N N" in SciPy's CSR: the identity, but for the rows of slaves."""
        import scipy.sparse

        n = self.space.num_dofs
        free = np.flatnonzero(~self.tied.flatten().cpu().numpy())
        rows = np.concatenate([free, self.slaves[self.row].cpu().numpy()])
        columns = np.concatenate([free, self.column.cpu().numpy()])
        values = np.concatenate([np.ones(len(free)), self.coefficient.double().cpu().numpy()])
        return scipy.sparse.csr_array((values, (rows, columns)), shape=(n, n))

    # -- with others ---------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> Any:
        """The coefficients "k N" in SciPy's CSR."""
        import scipy.sparse

        place = self.row.cpu().numpy(), self.column.cpu().numpy()
        values = self.coefficient.double().cpu().numpy()
        return scipy.sparse.csr_array((values, place), shape=(len(self.slaves), self.space.num_dofs))

    def __and__(self, other: Any) -> Any:
        """Both: other ties, prescribed values, or a vanishing mean."""
        if isinstance(other, MeanZero):
            return other & self
        if not isinstance(other, Dirichlet | Ties):
            return NotImplemented
        if other.space is not self.space:
            raise ValueError("constraints joined by `&` must be on one and the same space.")
        return self.joined(other) if isinstance(other, Ties) else self.holding(other)

    def __rand__(self, other: Any) -> Any:
        return self & other

    @property
    def slack(self) -> float:
        """`agreement`, round-off allowed for."""
        return max(self.agreement, 1e3 * torch.finfo(self.space.dtype).eps)

    @property
    def parts(self) -> tuple["Ties", ...]:
        """The ties that were joined by `&`, none of them with prescribed values."""
        return self._parts or (self,)

    def holding(self, dirichlet: Dirichlet) -> "Ties":
        """The same ties where values are prescribed too."""
        dirichlet = held_by_both(self.held, dirichlet)
        if self._parts:
            held = [part.holding(dirichlet) for part in self._parts]
            return held[0] if len(held) == 1 else self._of(held, dirichlet)
        both = torch.nonzero((self.tied & dirichlet.fixed).flatten()).flatten()
        if len(both):
            raise ValueError(
                f"dof {int(both[0])} is tied to others and prescribed too ({len(both)} dofs are); one of the two can "
                "hold it: tie the others to it instead."
            )
        return self.beside(dirichlet)

    def beside(self, held: Constraint) -> "Ties":
        """The same ties, and what else holds dofs."""
        return self._of([self], held)

    def joined(self, other: "Ties") -> "Ties":
        """The ties of both. What is prescribed goes to each part of them, so that the order of `&` does not matter."""
        held, parts = held_by_both(self.held, other.held), list(self.parts)
        for new in other.parts:
            understood = [(i, both) for i, old in enumerate(parts) if (both := old.merged(new)) is not None]
            for i, both in understood[:1]:
                parts[i] = both
            if not understood:
                parts.append(new)
        whole = parts[0] if len(parts) == 1 else self._of(parts)
        return whole.holding(held) if isinstance(held, Dirichlet) else whole

    def merged(self, other: "Ties") -> "Ties | None":
        """One constraint that says what both do, of those that are to be understood together."""
        return None

    def _of(self, ties: Sequence["Ties"], held: Constraint | None = None) -> "Ties":
        """All these ties: a dof may follow one that follows others, and have two ties that say the same.

        Raises:
            ValueError: a dof with two ties that differ.
        """
        ties = sorted(ties, key=lambda t: t.agreement)
        sets = [(t.slaves.cpu().numpy(), t.rows, t.slack) for t in ties]
        slaves, matrix, shares, again = composed(self.space.num_dofs, sets)
        to = lambda a, like: torch.as_tensor(a, dtype=like.dtype, device=like.device)  # noqa: E731
        numbers, values = self.slaves, self.coefficient
        row, column, share = to(shares.row, numbers), to(shares.col, numbers), to(shares.data, values)

        def offset() -> Tensor:
            given = [t.coefficient.new_zeros(len(t.slaves)) if t.offset is None else t.offset for t in ties]
            batch = common_batch(*[g.shape[:-1] for g in given])
            each = torch.cat([g.expand(*batch, -1) for g in given], -1).index_select(-1, column) * share
            return each.new_zeros(*batch, len(slaves)).index_add(-1, row, each)

        found = object.__new__(Ties)
        found.space, found.held = self.space, Free(self.space) if held is None else held
        found._parts = tuple(part for t in ties for part in t.parts)
        found.agreement = max(t.agreement for t in ties)
        known = any(t._offset is not None for t in ties)
        entries = to(matrix.row, numbers), to(matrix.col, numbers), to(matrix.data, values)
        found._tie(to(slaves, numbers), *entries, offset if known else None)
        for i in again if known else ():
            found.check_offsets(ties[i])
        return found

    @torch.no_grad()
    def check_offsets(self, other: "Ties") -> None:
        """Raise where functions that these ties admit have other values by some others."""
        u = self.apply(self.coefficient.new_zeros(self.space.shape))
        apart = (other.apply(u) - u).abs()
        if not mapped(apart) and bool((apart > other.slack * u.abs().max()).any()):
            raise ValueError(
                f"{int((apart > 0).sum())} dofs are tied twice, with offsets that differ by {float(apart.max()):.3g}."
            )

    def __repr__(self) -> str:
        own = f"Ties({len(self.slaves)} of {self.space.num_dofs} dofs)"
        return own if isinstance(self.held, Free) else f"{self.held} & {own}"


def held_by_both(held: Any, other: Any) -> Any:
    """The values that two constraints prescribe, as one."""
    if isinstance(other, Free) or held is other:
        return held
    return other if isinstance(held, Free) else held & other


def ties_of(constraint: Any) -> Ties | None:
    """The ties among what a constraint does."""
    if isinstance(constraint, MeanZero):
        constraint = constraint.dirichlet
    return constraint if isinstance(constraint, Ties) else None
