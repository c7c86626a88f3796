"""Objects that hold tensors compare by identity: `==` on tensors has no single truth value."""

import importlib
import pkgutil
import sys
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

import fem
import nurbs
import segmentation
import solvers
import splines

CLASSES: dict[str, type] = {}  # by module and name


def find_classes(*packages) -> None:
    for package in packages:
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            values = vars(importlib.import_module(info.name)).values()
            own = [v for v in values if isinstance(v, type) and v.__module__ == info.name]
            CLASSES.update({f"{info.name}.{v.__name__}": v for v in own})


def holds_tensors(hint: Any, seen: frozenset = frozenset()) -> bool:
    """Whether what is annotated so may be a tensor, or contain one and compare it."""
    if typing.get_origin(hint) is not None:
        functions = typing.get_origin(hint) is Callable
        return not functions and any(holds_tensors(part, seen) for part in typing.get_args(hint))
    if getattr(hint, "array_type", hint) is Tensor:  # jaxtyping's annotations have an `array_type`
        return True
    compares = isinstance(hint, type) and is_dataclass(hint) and hint.__eq__ is not object.__eq__
    return compares and hint not in seen and any(holds_tensors(h, seen | {hint}) for h in hints_of(hint))


def hints_of(kind: type) -> list:
    anywhere = {name.rpartition(".")[2]: found for name, found in CLASSES.items()}
    hints = typing.get_type_hints(kind, anywhere | vars(sys.modules[kind.__module__]))
    return [hints[field.name] for field in fields(kind)]


def test_objects_that_hold_tensors_compare_by_identity():
    find_classes(fem, splines, nurbs, solvers, segmentation)
    kinds = {name: kind for name, kind in CLASSES.items() if is_dataclass(kind)}
    holders = {name for name, kind in kinds.items() if any(map(holds_tensors, hints_of(kind)))}
    assert {"Solution", "Surface", "PiecewiseFit", "Eigenmodes"} <= {name.rpartition(".")[2] for name in holders}
    assert holds_tensors(dict[str, tuple[Tensor, int] | None])
    assert not holds_tensors(dict[str, tuple[int, ...] | Callable[[Tensor], Tensor]])
    wrong = sorted(name for name in holders if kinds[name].__eq__ is not object.__eq__)
    assert not wrong, f"these hold tensors: `@dataclass(eq=False)`, not {wrong}"
