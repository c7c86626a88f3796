"""C functions as Python functions of tensors and numbers: the one way in which compiled code is called.

The code defines `int run(…, int64_t threads)`, and its parameters say what a call takes:

    int64_t n, double x         a number
    const T *x, T *x            a contiguous tensor of this type on the CPU; None, which is NULL; or a list of numbers
    T *const *x                 a list of tensors, not always contiguous: then their strides are parameters too;
                                the first pointer of an empty list is NULL

`threads`, the last one, is no argument of the call (see `fem.support.threads`). A call leaves Python's lock to others,
and what it returns is up to the code: usually how many items have failed.
"""

import ctypes
import re
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from fem.support.native import library
from fem.support.threads import num_threads, watch

NAMES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int16: "int16_t",
    torch.int32: "int32_t",
    torch.int64: "int64_t",
    torch.uint8: "uint8_t",
    torch.bool: "uint8_t",
}
NUMBERS = {
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "int16_t": ctypes.c_int16,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint8_t": ctypes.c_uint8,
}
RUN = re.compile(r"\bint run\(([^)]*)\)")


@cache
def c_text(package: str, *names: str) -> str:
    """The text of C files that lie beside a package's modules, one after another."""
    return "\n".join(files(package).joinpath(name).read_text(encoding="utf-8") for name in names)


class CFunction:
    """`run` of some C code; `ready(work)` comes before a call, since it says whether it is compiled (now, or by now).

    Args:
        text: the code.
        definitions: types and whole numbers that the code leaves open: `T=torch.float64` becomes `typedef double T;`
            and `D=3` becomes `enum { D = 3 };`, before the text.
        even: whether it keeps all its threads at work, whatever its arguments.
    """

    def __init__(self, text: str, even: bool = False, **definitions: torch.dtype | int):
        types = {name: NAMES[value] for name, value in definitions.items() if isinstance(value, torch.dtype)}
        lines = ["#include <stdint.h>", *[f"typedef {value} {name};" for name, value in types.items()]]
        lines += [f"enum {{ {name} = {value} }};" for name, value in definitions.items() if name not in types]
        declared = RUN.search(text)
        if declared is None:
            raise ValueError("C code must define `int run(..., int64_t threads)`.")
        self.library = library("\n".join([*lines, text]))
        self.ready = self.library.ready
        self.even, self.first, self.kept = even, (), ()
        self.rest = [parameter(words, types) for words in declared[1].split(",")[:-1]]

    def bind(self, *args: Any) -> "CFunction":
        """The function of the arguments after these, which are looked at once, and whose tensors are kept alive."""
        bound = copy(self)
        bound.first = (*self.first, *[given(a) for given, a in zip(self.rest, args, strict=False)])
        bound.kept, bound.rest = (*self.kept, *args), self.rest[len(args) :]
        return bound

    def __call__(self, *args: Any) -> int:
        """Run the code.

        Raises:
            TypeError: arguments of another number, type or layout than the code declares.
        """
        if self.rest or args:
            if len(args) != len(self.rest):
                raise TypeError(f"C code takes {len(self.rest)} more arguments; got {len(args)}.")
            args = tuple([given(a) for given, a in zip(self.rest, args, strict=True)])
        threads, run = num_threads(), self.library.run
        args = (*self.first, *args, ctypes.c_int64(threads))
        return watch(run, threads, *args) if self.even and threads > 1 else run(*args)  # type: ignore[misc]


def parameter(words: str, types: dict[str, str]) -> Callable[[Any], Any]:
    """What turns an argument into what C code gets, from the parameter's declaration."""
    name, *stars = [w for w in re.findall(r"\w+|\*", words) if w not in ("const", "restrict")][:-1]
    return (number, pointer, pointers)[len(stars)](types.get(name) or name)


def number(name: str) -> Callable[[Any], Any]:
    return NUMBERS[name]


def pointer(name: str) -> Callable[[Any], Any]:
    dtypes, kind = {t for t, n in NAMES.items() if n == name}, NUMBERS[name]

    def given(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.dtype not in dtypes or not value.is_cpu or not value.is_contiguous():
                raise TypeError(f"C code takes contiguous tensors of {name} on the CPU; got {described(value)}.")
            return ctypes.c_void_p(value.data_ptr())
        return None if value is None else array(kind, value)

    return given


def pointers(name: str) -> Callable[[Any], Any]:
    dtypes = {t for t, n in NAMES.items() if n == name}

    def given(values: Sequence[Tensor]) -> Any:
        found = []
        for value in values:
            if value.dtype not in dtypes or not value.is_cpu:
                raise TypeError(f"C code takes tensors of {name} on the CPU; got {described(value)}.")
            found.append(value.data_ptr())
        return array(ctypes.c_void_p, found)

    return given


def array(kind: Any, values: Sequence[Any]) -> Any:
    return (kind * max(len(values), 1))(*values)


def described(value: Tensor) -> str:
    return f"{value.dtype} on {value.device} with shape {tuple(value.shape)} and strides {value.stride()}"
