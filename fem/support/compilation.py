"""When work is compiled: never on its first runs, always once it has shown to be worth it.

Compiling costs a second or more, and pays only for work that comes back. A kernel runs uncompiled until it has seen a
fair amount of work; `compilation("always")` and `compilation("never")` decide it by hand. Where no compiler is
installed everything stays uncompiled, and one warning says so. The same policy governs kernels for `torch.compile`,
which are those of GPUs and of operations that C code is not written for, and C code of our own (`fem.support.native`).
"""

import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from fem.support.cache import Store

WORTH = 2**28  # numbers a kernel has read before it is compiled: some seconds of work
MISSING = ("No working C++ compiler", "InvalidCxxCompiler", "triton installation", "TritonMissing")  # in error messages
SHAPES = 256  # for which one kernel keeps what it has compiled
_missing = Store("compilers that are missing", 1)


class Policy:
    """What the contexts say that are open: the last of them, in whatever thread, counts for the process.

    Not for a thread alone, since backward passes run in threads of their own.
    """

    def __init__(self) -> None:
        self.when, self.open, self.lock = "auto", dict[object, str](), Lock()

    def enter(self, context: object, when: str) -> None:
        with self.lock:
            self.open[context] = self.when = when

    def leave(self, context: object) -> None:
        with self.lock:
            del self.open[context]
            self.when = ["auto", *self.open.values()][-1]


current = Policy()


@contextmanager
def compilation(when: str) -> Iterator[None]:
    """Within this context kernels are compiled at once ("always"), not at all ("never"), or when it pays ("auto").

    It counts for all threads. Results may differ in the last digits between compiled and uncompiled kernels.

    Raises:
        ValueError: another word.
    """
    if when not in ("always", "auto", "never"):
        raise ValueError(f'`compilation(...)` takes "always", "auto" or "never"; got {when!r}.')
    context = object()
    current.enter(context, when)
    try:
        yield
    finally:
        current.leave(context)


def policy() -> str:
    return current.when


def missing(what: str, advice: str) -> None:
    """Without a compiler everything stays uncompiled; one warning says so."""
    if not _missing:
        _missing.put("first", what)
        warnings.warn(
            f"kernels stay uncompiled and slower: no working {what} compiler was found. {advice}, or say "
            '`with compilation("never"):`.',
            stacklevel=4,
        )


def failed(why: str) -> None:
    warnings.warn(f"a kernel stays uncompiled and slower: {why}", stacklevel=4)


def gave_up(error: Exception) -> None:
    """What is said when `torch.compile` raises: its compiler is missing, or why it failed."""
    text = f"{type(error).__name__}: {error}"
    if any(sign in text for sign in MISSING):
        missing("C++", "Install g++ or clang")
    else:
        failed(f"`torch.compile` failed: {text.splitlines()[0]}")


@dataclass
class Specialization:
    """What a kernel has read in tensors of one shape, and its compiled function for them."""

    work: int = 0
    run: Callable[..., Any] | None = None


class Kernel:
    """A function of lists of tensors that is compiled, shape by shape, when that pays."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.broken = function, False
        self.shapes = Store("shapes of kernels", SHAPES)

    def __call__(self, *lists: list[Tensor]) -> Any:
        when = current.when
        if when == "never" or self.broken or _missing or torch.compiler.is_compiling():
            return self.function(*lists)
        key = tuple((t.shape, t.stride(), t.dtype, t.device) for tensors in lists for t in tensors)
        shape = self.shapes.get(key, Specialization)
        if when == "auto":
            shape.work += sum(t.numel() for tensors in lists for t in tensors)
            if shape.work < WORTH:
                return self.function(*lists)
        try:
            if shape.run is None:
                shape.run = torch.compile(fresh(self.function), dynamic=False, fullgraph=True)
            return shape.run(*lists)
        except Exception as error:  # PyTorch has many kinds
            result = self.function(*lists)  # which raises what the function itself does wrong
            self.give_up(error)
            return result

    def give_up(self, error: Exception) -> None:
        """Stay uncompiled from now on; without a compiler everything does."""
        self.broken = True
        gave_up(error)


def fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with code of its own: PyTorch compiles one piece of code a few times only."""
    if isinstance(function, types.MethodType):
        return types.MethodType(fresh(function.__func__), function.__self__)
    if not isinstance(function, types.FunctionType):
        return function
    code = function.__code__.replace()
    made = types.FunctionType(code, function.__globals__, None, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made
