"""NURBS curves, surfaces and volumes, differentiable in everything that defines them.

Names are loaded when first used, so that `import nurbs` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nurbs.curve import Curve
    from nurbs.surface import Surface
    from nurbs.volume import Volume

_HOME = {
    "nurbs.curve": ("Curve",),
    "nurbs.surface": ("Surface",),
    "nurbs.volume": ("Volume",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Curve",
    "Surface",
    "Volume",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'nurbs' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
