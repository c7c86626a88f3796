"""Numbered problems to train on: what a network sees and the parameters of the energy, made anew when asked for.

A problem set is any callable `problems(start, count)` that returns images "b c *grid" and parameters of an energy for
the problems number start, …, start + count − 1, always the same. Training then needs to remember no more than a number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.parameters import Parameter
from fem.space.space import FunctionSpace
from fem.support.checks import check_integers, check_kind

Problems = Callable[[int, int], tuple[Tensor, Sequence[Parameter]]]


@runtime_checkable
class Family(Protocol):
    """What `ExponentialSeries` and `GaussianField` are."""

    def sample(self, count: int, start: int = 0, seed: int = 0, like: Tensor | None = None) -> Tensor: ...

    def log(self, omega: Tensor, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class DiffusionProblems:
    """−∇·(ν∇u) = f with ν from a family of fields and, where asked, f from another.

    −∇·(ν∇u) = f has the same solution when ν and f are divided by the geometric mean of ν over the nodes. This is done,
    so that energies of different problems are comparable.

    Args:
        space: Lagrange, on a grid; problems have its type and device.
        family: of log ν.
        load: of f, if any: log of its fields. A `GaussianField` for instance; with two families that are quasi-random,
            f would depend on ν.
        seed: another one gives other problems, as for validation.

    `problems(start, count)` gives images "b 1 *grid" of log ν (with a load "b 2 *grid", f last) in single precision,
    and the parameters (ν,) or (ν, f) of the energy.
    """

    space: FunctionSpace
    family: Family
    load: Family | None = None
    seed: int = 0

    def __post_init__(self):
        check_kind("DiffusionProblems", "space", self.space, FunctionSpace, "a `FunctionSpace`")
        if self.space.components is not None or not self.space.is_lagrange or self.space.mesh.grid is None:
            raise ValueError(f"`DiffusionProblems` needs a scalar Lagrange space on a grid; got {self.space}.")
        for name, family in (("family", self.family), ("load", self.load)):
            if family is not None or name == "family":
                wanted = "a family of fields, `GaussianField(...)` or `ExponentialSeries()`"
                check_kind("DiffusionProblems", name, family, Family, wanted)
        check_integers("DiffusionProblems", None, seed=self.seed)

    def __call__(self, start: int, count: int) -> tuple[Float[Tensor, "b c *grid"], Sequence[Parameter]]:
        check_integers("DiffusionProblems.__call__", 0, start=start, count=count)
        x = self.space.dof_coordinates
        nu = self.family.log(self.family.sample(count, start, self.seed, x), x).exp()
        if self.load is None:
            return self.of(nu)
        return self.of(nu, self.load.log(self.load.sample(count, start, self.seed + 1, x), x), scaled=True)

    def of(
        self, nu: Float[Tensor, "b n"], f: Float[Tensor, "b n"] | None = None, scaled: bool = False
    ) -> tuple[Float[Tensor, "b c *grid"], Sequence[Parameter]]:
        """Images and parameters of problems given by nodal values of ν, and of f where the problems have loads.

        Args:
            scaled: whether f has been divided by the mean of ν already.

        Raises:
            ValueError: ν that is not positive and finite, f that is not finite, missing, or not expected; shapes that
                do not fit the space.
        """
        V = self.space
        if (f is None) != (self.load is None):
            raise ValueError(f"these problems have {'no load; leave f out' if f is not None else 'a load; give f'}.")
        for name, field in (("ν", nu), ("f", f)):
            if field is None:
                continue
            check_kind("DiffusionProblems.of", name, field, Tensor, f"a tensor of nodal values (b, {V.num_dofs})")
            if field.ndim != 2 or field.shape[1] != V.num_dofs:
                raise ValueError(f"`{name}` needs shape (b, {V.num_dofs}), nodal values; got {tuple(field.shape)}.")
        bad = ~(nu > 0) | torch.isinf(nu)
        if bool(bad.any()):
            item, node = torch.nonzero(bad)[0].tolist()
            raise ValueError(
                f"ν must be positive and finite; it is {float(nu[item, node])} at node {node} of item {item}."
            )
        mean = nu.log().mean(-1, keepdim=True)
        nu, fields = (nu.log() - mean).exp(), [nu.log() - mean]
        params = [V.function(nu)]
        if f is not None:
            if not bool(torch.isfinite(f).all()):
                raise ValueError("f holds values that are not finite.")
            f = f if scaled else f / mean.exp()
            fields.append(f)
            params.append(V.function(f))
        return torch.stack([V.to_grid(field) for field in fields], 1).float(), tuple(params)
