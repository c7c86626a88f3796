"""Any dofs that stay as they are, item by item: those at bounds, and those that an energy does not see."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fem.space.space import AnySpace


@dataclass(frozen=True, eq=False)
class FixedDofs:
    """Prescribed dofs and others that are held, `fixed` "*b *shape"; `unseen` are held because their rows are zero."""

    space: AnySpace
    fixed: Tensor
    unseen: Tensor | None = None

    def data(self) -> Tensor | None:
        return None

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        return torch.where(self.fixed, data, u)

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        return residual.masked_fill(self.fixed, 0)
