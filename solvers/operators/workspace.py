"""Memory that outlives the solver that used it: repeated solves on one space pay for its first touch once.

The operating system hands out large arrays page by page, as they are first written, at a cost of several passes over
memory. A solver that is set up again and again on one space, and each time asks for the same buffers in the same order,
gets those of its predecessor, provided that nobody can see them any more.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor

_resting: "WeakKeyDictionary[Any, dict[str, Workspace]]" = WeakKeyDictionary()
_active: list["Workspace"] = []


class Workspace:
    """Buffers in the order in which they are asked for; within its context `zeros` takes from it."""

    def __init__(self):
        self.buffers: list[Tensor] = []
        self.taken = 0

    def __enter__(self) -> "Workspace":
        _active.append(self)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _active.pop()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        if self.taken < len(self.buffers):
            found = self.buffers[self.taken]
            if found.shape == shape and found.dtype == dtype and found.device == device:
                self.taken += 1
                return found.zero_()
        fresh = torch.zeros(shape, dtype=dtype, device=device)
        self.buffers[self.taken :] = [fresh]
        self.taken += 1
        return fresh


def zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros of a type and device like another tensor's, from the workspace in use if there is one."""
    dtype = dtype or like.dtype
    if _active:
        return _active[-1].take(shape, dtype, like.device)
    return like.new_zeros(shape, dtype=dtype)


def workspace(owner: Any, space: Any, use: str) -> Workspace:
    """A workspace for as long as `owner` lives; then it rests with the space for the next owner with the same use."""
    found = _resting.setdefault(space, {}).pop(use, None) or Workspace()
    finalize(owner, rest_on(_resting[space], use, found))
    return found


def rest_on(place: dict[str, Workspace], use: str, used: Workspace) -> Callable[[], None]:
    def rest() -> None:
        used.taken = 0
        place[use] = used

    return rest
