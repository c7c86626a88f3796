"""What one solve leaves for the next: the matrix that was made ready last, as a factorisation or a hierarchy.

Time steps, new loads, and all parameters that the matrix does not depend on need no other. A functional carries what
its last solve left as `reuse`, and both are gone together; `minimize(..., reuse=...)` names another place.
"""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from fem.forms.energy import Functional
from solvers.operators.system import LinearMethod, Prepared, System


@dataclass(frozen=True, eq=False)
class Kept:
    """A system made ready, the method that did it, and what tells whether it may serve another system."""

    prepared: Prepared
    method: LinearMethod
    version: int | None
    tensors: list[Tensor] | None = None  # copies of the user's, who may change them in place, once a solve has ended

    @classmethod
    def of(cls, prepared: Prepared, method: LinearMethod) -> "Kept":
        return cls(prepared, method, prepared.system.form.space.mesh.version)

    def with_copies(self) -> "Kept":
        """The same for later solves: not before this one has ended, which needs the memory."""
        if self.tensors is not None:
            return self
        return replace(self, tensors=[t.clone() for t in self.prepared.system.matrix_tensors])

    def serves(self, system: System, method: LinearMethod) -> bool:
        """Whether the system has this very matrix, and the method is the same."""
        mine, before, now = self.prepared.system, self.prepared.system.form, system.form
        same = before.space is now.space and before.constraint is now.constraint and self.method == method
        same &= self.version is not None and self.version == now.space.mesh.version
        same &= mine.batch == system.batch and mine.symmetric == system.symmetric
        tensors = system.matrix_tensors
        copies = self.tensors or []
        same &= len(tensors) == len(copies) and all(map(torch.equal, tensors, copies))
        return same and system.same_matrix(mine)


_living: "WeakSet[Reuse]" = WeakSet()  # for `forget` alone: it keeps none of them


class Reuse:
    """Room for the last factorisation or hierarchy, which the next solve takes if its matrix is the same.

    Several energies over one space may share one, `minimize(..., reuse=shared)`; copies of it are empty.
    """

    def __init__(self):
        self._kept: list[Kept] = []
        _living.add(self)

    def take(self, system: System, method: LinearMethod) -> Kept | None:
        """What serves the system. Anything is taken out, so that no two solves share it and only one is ever kept."""
        try:
            kept = self._kept.pop()
        except IndexError:  # nothing there, or another thread has it
            return None
        return kept if kept.serves(system, method) else None

    def ready(self, system: System, method: LinearMethod) -> Prepared:
        """The system made ready, or what is kept where that serves it; left for the next."""
        kept = self.take(system, method) or Kept.of(method.prepare(system), method)
        self.leave(kept)
        return kept.prepared

    def leave(self, kept: Kept | None) -> None:
        self._kept[:] = [] if kept is None else [kept.with_copies()]

    def forget(self) -> None:
        """Let go of it."""
        self._kept.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return Reuse, ()


def reuse_of(functional: Functional) -> Reuse:
    """What a functional carries."""
    if functional.reuse is None:
        functional.reuse = Reuse()
    return functional.reuse


def forget() -> None:
    """Let go of what all solves so far have left for the next ones: to time a solve from scratch, or to free memory."""
    for reuse in list(_living):
        reuse.forget()
