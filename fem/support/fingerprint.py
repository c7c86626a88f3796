"""What the result of a function can depend on besides its arguments, so that things made of it are made again in time.

A function's result depends on its code, on what it closes over, on globals, defaults and attributes that the code
mentions, and on the same of every function among these. Functions that agree in all of it are one function here: a
`lambda` made anew in every step of a loop is compiled once.
"""

import sys
import types
from collections import deque
from collections.abc import Callable, Hashable
from functools import cached_property, lru_cache, partial
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from fem.support.cache import Store

KEPT = 256  # things kept; each may hold compiled code
SMALL = 1000  # entries of a tensor that is told by its values
LIBRARIES = {*sys.stdlib_module_names, "torch", "numpy", "scipy", "jaxtyping", "fem", "solvers"}
CALLED = ("__call__", "__wrapped__", "__init__", "__getitem__", "__getattr__")  # by code that does not name them
_made = Store("what is made of densities", KEPT)


def cached(function: Callable[..., Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """`make()`, kept while the function and everything that it refers to stay as they are."""
    return _made.get(HashedTuple((fingerprint(function), key)), make)


class HashedTuple:
    """A tuple that computes its hash once."""

    def __init__(self, value: tuple[Hashable, ...]):
        self.value, self.hash = value, hash(value)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashedTuple) and self.hash == other.hash and self.value == other.value


class Same:
    """Equal to itself alone as long as an object lives: its id could come back with another object.

    It does not keep the object alive, where the object allows that.
    """

    def __init__(self, value: Any):
        try:
            self.held = ref(value)  # one and the same for one object
        except TypeError:
            self.held = value

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.held is other.held


def fingerprint(function: Callable[..., Any]) -> Hashable:
    """Equal for two functions only if they do the same.

    Code of libraries is taken as fixed, and so are entries of large NumPy arrays and, unless changed by operations of
    PyTorch, of large tensors.
    """
    found: list[Hashable] = []
    names: dict[str, Any] = dict.fromkeys(CALLED)
    seen: dict[int, int] = {}
    kept: list[Any] = []  # since `seen` goes by ids
    owners: list[list[Any]] = []  # objects with attributes, and how many names have been looked up
    queue: list[Any] = [function]
    while queue:
        while queue:
            value = queue.pop()
            simple = by_value(value)
            if simple is None and id(value) in seen:
                simple = ("again", seen[id(value)])
            if simple is None:
                seen[id(value)] = len(seen)
                kept.append(value)
                simple = visit(value, names, owners, queue)
            found.append(simple)
        known = list(names)
        for owner in owners:
            for name in known[owner[1] :]:
                attribute = static_attribute(owner[0], name)
                if attribute is not MISSING:
                    found.append(name)
                    queue.append(attribute)
            owner[1] = len(known)
    return tuple(found)


def by_value(value: Any) -> Hashable | None:
    """Immutable things as they are."""
    if value is None or isinstance(value, bool | int | str | bytes | torch.dtype | torch.device):
        return type(value), value
    if isinstance(value, float | complex):
        return type(value), repr(value)  # 0 and −0 are equal, nan is not itself
    return None


def visit(value: Any, names: dict[str, Any], owners: list[list[Any]], queue: list[Any]) -> Hashable:
    """One object: what tells it from others at once; what it refers to goes into the queue."""
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.shape, value.dtype, value.tobytes() if value.size <= SMALL else Same(value)
    if isinstance(value, tuple | list | deque | set | frozenset):
        queue += value
        return type(value), len(value)
    if isinstance(value, dict):
        queue += [*value, *value.values()]
        return type(value), len(value)
    if isinstance(value, types.MethodType):
        queue += [value.__func__, value.__self__]
        return types.MethodType
    if isinstance(value, types.BuiltinFunctionType):
        queue.append(value.__self__)
        return value.__name__
    if isinstance(value, partial):
        queue += [value.func, value.args, value.keywords]
        return partial
    if isinstance(value, staticmethod | classmethod):
        queue.append(value.__func__)
        return type(value)
    if isinstance(value, property):
        queue.append(value.fget)
        return property
    if isinstance(value, cached_property):
        queue.append(value.func)
        return cached_property
    if isinstance(value, types.FunctionType | types.ModuleType | type):
        home = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
        if str(home).partition(".")[0] in LIBRARIES:
            return Same(value)
    if not isinstance(value, types.FunctionType) or value.__dict__:
        owners.append([value, 0])
    if isinstance(value, types.FunctionType):
        own = names_in(value.__code__)
        names |= own
        queue += [value.__defaults__, value.__kwdefaults__]
        queue += [value.__globals__[n] for n in own if n in value.__globals__]
        queue += [contents(c) for c in value.__closure__ or ()]
        return value.__code__
    if isinstance(value, torch.nn.Module):
        queue += [value._parameters, value._buffers, value._modules, value.training, type(value).forward]
    return Same(value)


def of_tensor(value: Tensor) -> Hashable:
    """Small tensors by their values, since they can change unseen; larger ones by identity and version."""
    small = value.numel() <= SMALL and value.device.type == "cpu" and value.layout is torch.strided
    if small and not value.is_complex():
        content: Hashable = value.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    else:
        content = Same(value), None if value.is_inference() else value._version
    return tuple(value.shape), value.dtype, value.requires_grad, content


def contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return MISSING


MISSING = object()


def static_attribute(owner: Any, name: str) -> Any:
    """An attribute of an object or of its class, without calling anything; of classes of libraries none."""
    own = getattr(owner, "__dict__", {})
    if name in own and not isinstance(owner, type):
        return own[name]
    if isinstance(owner, types.ModuleType | types.FunctionType):
        return MISSING
    if name == "__init__" and not isinstance(owner, type):
        return MISSING  # it has been called
    for base in (owner if isinstance(owner, type) else type(owner)).__mro__:
        if name in base.__dict__ and str(base.__module__).partition(".")[0] not in LIBRARIES:
            found = base.__dict__[name]
            return getattr(owner, name, MISSING) if isinstance(found, types.MemberDescriptorType) else found
    return MISSING


@lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> dict[str, Any]:
    """Names of globals and attributes in a function and the functions inside it."""
    inner = [n for c in code.co_consts if isinstance(c, types.CodeType) for n in names_in(c)]
    return dict.fromkeys([*code.co_names, *inner])
