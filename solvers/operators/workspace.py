"""What solves on one space leave for the next ones on it: buffers, and hierarchies of matrices. It lies with the space.

The operating system hands out large arrays page by page, as they are first written, at a cost of several passes over
memory. A solver that is set up again and again on one space, and each time asks for the same buffers in the same order,
gets those of its predecessor, provided that nobody can see them any more.
"""

from typing import Any
from weakref import finalize

import torch
from torch import Tensor

from fem.space.space import AnySpace
from fem.support.portions import large_zeros


class Buffers:
    """Zeros in the order in which they are asked for: again the same ones after `rewind`."""

    def __init__(self):
        self.tensors: list[Tensor] = []
        self.taken = 0

    def zeros(self, like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros of a type and device like another tensor's."""
        dtype = dtype or like.dtype
        if self.taken < len(self.tensors):
            found = self.tensors[self.taken]
            if found.shape == shape and found.dtype == dtype and found.device == like.device:
                self.taken += 1
                return found.zero_()
        fresh = large_zeros(like, *shape, dtype=dtype)
        self.tensors[self.taken :] = [fresh]
        self.taken += 1
        return fresh

    def rewind(self) -> None:
        self.taken = 0

    def forget(self) -> None:
        """Let go of all of them."""
        self.tensors, self.taken = [], 0


class Workspace:
    """Buffers by what they are used for, and the hierarchies made last; copies of it are empty."""

    def __init__(self):
        self.resting: dict[str, Buffers] = {}
        self.hierarchies: list[Any] = []

    def buffers(self, owner: Any, use: str) -> Buffers:
        """Buffers for as long as `owner` lives; then they rest here for the next owner with the same use."""
        found = self.resting.pop(use, None) or Buffers()
        finalize(owner, rest, self.resting, use, found)
        return found

    def __reduce__(self) -> tuple:
        return Workspace, ()


def rest(place: dict[str, Buffers], use: str, used: Buffers) -> None:
    used.rewind()
    place[use] = used


def workspace_of(space: AnySpace) -> Workspace:
    """The workspace that lies with a space."""
    if space._workspace is None:
        space._workspace = Workspace()
    return space._workspace
