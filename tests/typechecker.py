"""How the tests execute annotations: beartype, with jaxtyping's account of the sizes that axes have during a call.

What jaxtyping puts around every function of a hooked package binds each call's arguments by name and checks them twice:
half the time of the suite. Only axes such as `{degree+1}` need the names. Everything else is checked once by beartype
here, in axis sizes of its own where the annotations speak of axes.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

# An `int` is a `float`, as type checkers have it (PEP 484).
check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))
axis_sizes = jaxtyped("context")


def install(packages: list[str]) -> None:
    """From now on, functions and dataclasses of the packages check what they are called with and what they return."""
    jaxtyping.install_import_hook(packages, f"{__name__}.check")
    jaxtyping.jaxtyped = lambda *function, **options: jaxtyped(*function, **options) if function else checked


def checked(function: Any) -> Any:
    """What the import hook decorates with, in place of `jaxtyped(typechecker=check)`."""
    if inspect.isclass(function):
        made = vars(function).get("__init__")
        if is_dataclass(function) and made is not None and not hasattr(made, "__wrapped__"):
            function.__init__ = checked(made)
        return function
    annotations = {name: read(a, function.__globals__) for name, a in inspect.get_annotations(function).items()}
    function.__annotations__ = annotations
    arrays = [array for annotation in annotations.values() for array in arrays_in(annotation)]
    if inspect.isgeneratorfunction(function) or any("{" in array.dim_str for array in arrays):
        return jaxtyped(function, typechecker=check)
    return within_axis_sizes(check(function)) if arrays else check(function)


def read(annotation: Any, names: dict[str, Any]) -> Any:
    """The annotation without text in it; as with jaxtyping, anything goes where text names what is not there yet."""
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), names, include_extras=True)["it"]
    except Exception:
        return Any


def arrays_in(annotation: Any) -> Iterator[Any]:
    """The array types within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        yield annotation
    for part in get_args(annotation):
        yield from arrays_in(part)


def within_axis_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args, **kwargs):
        __tracebackhide__ = True
        with axis_sizes:
            return function(*args, **kwargs)

    return call
