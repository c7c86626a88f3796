"""When kernels are compiled: never on their first runs, always once they have shown to be worth it.

`torch.compile` costs seconds, and pays only for work that comes back. A kernel runs uncompiled until it has seen a fair
amount of work, then it is compiled for the shape that it sees most; `compilation("always")` and `compilation("never")`
decide it by hand. Where no compiler is installed everything stays uncompiled, and one warning says so.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

WORTH = 2**28  # numbers a kernel has read before it is compiled: some seconds of work
SHAPES = 16  # shapes that one kernel is compiled for at most
_policy = ["auto"]
_broken: list[str] = []


@contextmanager
def compilation(when: str) -> Iterator[None]:
    """Within this context kernels are compiled at once ("always"), not at all ("never"), or when it pays ("auto").

    Results may differ in the last digits between compiled and uncompiled kernels.

    Raises:
        ValueError: another word.
    """
    if when not in ("always", "auto", "never"):
        raise ValueError(f'`compilation(...)` takes "always", "auto" or "never"; got {when!r}.')
    before, _policy[0] = _policy[0], when
    try:
        yield
    finally:
        _policy[0] = before


class Kernel:
    """A function of lists of tensors that is compiled, shape by shape, when that pays."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.compiled: dict[Any, Callable[..., Any]] = {}
        self.work: Counter[Any] = Counter()

    def __call__(self, *lists: list[Tensor]) -> Any:
        if _policy[0] == "never" or _broken or torch.compiler.is_compiling():
            return self.function(*lists)
        key = tuple((t.shape, t.stride(), t.dtype, t.device) for tensors in lists for t in tensors)
        if key not in self.compiled:
            self.work[key] += sum(t.numel() for tensors in lists for t in tensors)
            if len(self.compiled) >= SHAPES or (_policy[0] == "auto" and self.work[key] < WORTH):
                return self.function(*lists)
            self.compiled[key] = torch.compile(copy_of(self.function), dynamic=False, fullgraph=True)
        try:
            return self.compiled[key](*lists)
        except Exception as error:  # a missing compiler shows as one of many kinds
            if "ompiler" not in f"{type(error).__name__}{error}":
                raise
            _broken.append(str(error))
            warnings.warn(
                "kernels stay uncompiled and slower: `torch.compile` found no working C++ compiler. Install g++ or "
                'clang, or say `compilation("never")`.',
                stacklevel=2,
            )
            return self.function(*lists)


def copy_of(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with code of its own: PyTorch counts recompilations, of which it allows few, code by code."""
    function = getattr(method, "__func__", method)
    copied = FunctionType(
        function.__code__.replace(), function.__globals__, None, function.__defaults__, function.__closure__
    )
    owner = getattr(method, "__self__", None)
    return copied if owner is None else MethodType(copied, owner)
