"""How many arguments a density takes, read from its signature: missing parameters are told before it is called.

Every term of a functional gets the same parameters after its own arguments. What cannot be read is called as it is.
"""

import inspect
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple

from torch.nn import Module


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
