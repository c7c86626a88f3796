"""Checks of what a user hands over: every message says the call, what it expects, what it got, and what would work.

Python's and NumPy's numbers are numbers; booleans are none, and NaN and infinity are never a setting.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from math import inf, isfinite
from numbers import Real
from operator import index
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

Function = TypeVar("Function", bound=Callable[..., Any])

INTEGERS = {None: "an integer", 1: "a positive integer", 0: "a non-negative integer"}
NUMBERS = {
    "finite": ("a finite number", lambda v: True),
    "positive": ("a positive number", lambda v: v > 0),
    "non-negative": ("a non-negative number", lambda v: v >= 0),
    "a fraction": ("a number between 0 and 1", lambda v: 0 < v < 1),
    "a share": ("a number from 0 to 1", lambda v: 0 <= v <= 1),
    "a tolerance": ("a number of at least 0 and less than 1", lambda v: 0 <= v < 1),
}


def is_integer(value: Any, least: int | None = None) -> bool:
    try:
        number = index(value)
    except TypeError:
        return False
    return not isinstance(value, bool) and (least is None or number >= least)


def check_integers(call: str, least: int | None = 1, optional: bool = False, **settings: Any) -> None:
    """Raise where a setting is not an integer, `least` or more; `optional` ones may be None.

    Raises:
        ValueError: named as in `` `Newton(max_iterations=...)` ``.
    """
    for name, value in settings.items():
        if not is_integer(value, least) and not (optional and value is None):
            wanted = INTEGERS.get(least, f"an integer of at least {least}")
            refuse(call, name, f"None or {wanted}" if optional else wanted, value)


def check_numbers(call: str, kind: str, optional: bool = False, **settings: Any) -> None:
    """Raise where a setting is not a finite number of that kind (a key of `NUMBERS`); `optional` ones may be None.

    Raises:
        ValueError: named as in `` `Adam(lr=...)` ``.
    """
    wanted, fits = NUMBERS[kind]
    for name, value in settings.items():
        number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value) and fits(value)
        if not number and not (optional and value is None):
            refuse(call, name, f"None or {wanted}" if optional else wanted, value)


def check_flags(call: str, **settings: Any) -> None:
    """Raise where a setting is neither True nor False.

    Raises:
        ValueError: named as in `` `UNet(coordinates=...)` ``.
    """
    for name, value in settings.items():
        if not isinstance(value, bool | np.bool_):
            refuse(call, name, "True or False", value)


def check_choice(call: str, name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise where a setting is none of the words (or numbers, or None) it may be.

    Raises:
        ValueError: with all of them, and the one that was probably meant.
    """
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        words = [f'"{choice}"' if isinstance(choice, str) else repr(choice) for choice in choices]
        refuse(call, name, f"{', '.join(words[:-1])} or {words[-1]}", value, did_you_mean(value, choices))


def check_kind(call: str, name: str, value: Any, kinds: Any, wanted: str) -> None:
    """Raise where an argument is no object of these kinds (types or protocols); a class is none of its objects.

    Raises:
        TypeError: with what is `wanted`, in words.
    """
    if isinstance(value, type) or not isinstance(value, kinds):
        raise TypeError(f"`{call}({name}=...)` must be {wanted}; got {shown(value)}.")


def check_callable(call: str, name: str, value: Any, wanted: str, optional: bool = False) -> None:
    """Raise where an argument cannot be called; `optional` ones may be None.

    Raises:
        TypeError: with what is `wanted`, in words.
    """
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"`{call}({name}=...)` must be {wanted}; got {shown(value)}.")


def check_params(call: str, params: Any, name: str = "params") -> tuple[Any, ...]:
    """Parameters as a tuple: a tensor, a field or a number alone is one parameter, and must say so.

    Raises:
        TypeError: not a tuple or list.
    """
    if isinstance(params, tuple | list):
        return tuple(params)
    if isinstance(params, dict):
        remedy = "parameters have no names; give their values in the order in which the density takes them"
    else:
        text = repr(params) if isinstance(params, Real) else "..."
        remedy = f"a single parameter is written `{name}=({text},)`"
    raise TypeError(f"`{call}({name}=...)` must be a tuple of parameters; got {shown(params)}: {remedy}.")


def check_floating(call: str, dtype: Any) -> None:
    """Raise where a dtype is not one that can be solved in: half precision has too few digits for any residual.

    Raises:
        TypeError: such as for `torch.int64`, `torch.bfloat16`, `torch.complex64` or `"float32"`.
    """
    if dtype is not float and dtype not in (torch.float64, torch.float32):
        raise TypeError(
            f"`{call}(dtype=...)` must be a floating-point type, `torch.float64` or `torch.float32`; got {dtype!r}."
        )


def check_floats(call: str, name: str, value: Any, wanted: str) -> None:
    """Raise where a tensor's numbers are whole, truth values or complex, and what is made like it would be too.

    Raises:
        TypeError: with what is `wanted`, in words.
    """
    check_kind(call, name, value, Tensor, wanted)
    if not value.is_floating_point():
        raise TypeError(
            f"`{call}({name}=...)` must be {wanted}, of floating-point numbers; got {value.dtype}. `{name}.double()` "
            "converts."
        )


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """A remedy for a misspelt word, starting with a blank; nothing where no word is like it."""
    words = {k.lower(): k for k in known if isinstance(k, str)}
    close = get_close_matches(word.lower(), words, 1) if isinstance(word, str) else []
    return f" Did you mean {words[close[0]]!r}?" if close else ""


def unknown_option(call: str, name: str, known: Sequence[str]) -> TypeError:
    """The error of a keyword argument that there is not, with those that there are."""
    return TypeError(f"`{call}` has no option `{name}`.{did_you_mean(name, known)} It has {', '.join(known)}.")


def named_options(function: Function) -> Function:
    """The function, where keyword arguments that there are not raise an error that names those that there are."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    name = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for given in options:
            if given not in known:
                raise unknown_option(name, given, known)
        return function(*args, **options)

    return cast(Function, call)


def refuse(call: str, name: str, wanted: str, value: Any, remedy: str = "") -> None:
    raise ValueError(f"`{call}({name}=...)` must be {wanted}; got {shown(value)}.{remedy}")


def shown(value: Any) -> str:
    """A value as messages quote it: short, and a class, a tensor or a function as what it is."""
    if isinstance(value, type):
        return f"the class `{value.__name__}`, not an object: write `{value.__name__}(...)`"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.ndim else f"a tensor of value {value.item()}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape} (`torch.as_tensor` makes a tensor of it)"
    text = repr(value)
    if len(text) <= 60 and not text.startswith("<"):
        return text
    if text.startswith(f"{type(value).__name__}(") and "\n" not in text:
        return f"{text[:76].rstrip()} …"
    name = getattr(value, "__name__", None)
    return f"the function `{name}`" if callable(value) and name else f"an object of class `{type(value).__name__}`"


# -- what a callable takes ---------------------------------------------------------------------------------------------


class Signature(NamedTuple):
    """The positional arguments of a function: their names, how many it needs, and how many it takes."""

    names: tuple[str, ...]
    least: int
    most: float
    keyword: str | None = None  # an argument that must be named in the call

    def __str__(self) -> str:
        return f"({', '.join(self.names)})"


def signature(function: Callable[..., Any]) -> Signature | None:
    """What a function takes; None where Python cannot tell."""
    try:
        own = function.forward if isinstance(function, Module) else function
        found = inspect.signature(own).parameters.values()
    except (TypeError, ValueError):
        return None
    plain = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [f"*{p.name}" for p in found if p.kind == p.VAR_POSITIONAL]
    keyword = next((p.name for p in found if p.kind == p.KEYWORD_ONLY and p.default is p.empty), None)
    least = sum(p.default is p.empty for p in plain)
    return Signature((*[p.name for p in plain], *rest), least, inf if rest else len(plain), keyword)


def check_arguments(name: str, takes: Signature | None, own: Sequence[str], num_params: int | None = None) -> None:
    """Raise where a density does not take its own arguments and, where their number is known, all parameters.

    Raises:
        TypeError: with what it takes, what it gets, and what to write.
    """
    if takes is None:
        return
    arguments = ", ".join(own)
    if takes.keyword is not None:
        raise TypeError(
            f"the {name} takes `{takes.keyword}` by name, and parameters are passed by position: write "
            f"`({arguments}, {takes.keyword})` without the `*`."
        )
    if takes.most < len(own):
        raise TypeError(f"the {name} takes {takes}; it must take ({arguments}) and then all parameters, if any.")
    if num_params is None:
        return
    gets = f"{arguments} and {num_params or 'no'} parameter{'' if num_params == 1 else 's'}"
    if takes.most < len(own) + num_params:
        raise TypeError(
            f"the {name} takes {takes}, but gets {gets}: every term gets all parameters. Let it take them, by name or "
            f"as `({arguments}, *params)`."
        )
    if takes.least > len(own) + num_params:
        lacks = ", ".join(takes.names[len(own) + num_params : takes.least])
        raise TypeError(
            f"the {name} takes {takes}, but gets {gets}; {lacks} is missing. Parameters are passed in order, as in "
            "`energy(u, k)` or `minimize(energy, params=(k,))`."
        )
