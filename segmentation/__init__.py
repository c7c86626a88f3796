"""Segmentation of images: connected components, a differentiable piecewise-constant layer, training and measures.

Names are loaded when first used, so that `import segmentation` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.components import clean_mask, label_components
    from segmentation.layer import PiecewiseConstant, piecewise_constant

_HOME = {
    "segmentation.components": ("clean_mask", "label_components"),
    "segmentation.layer": ("PiecewiseConstant", "piecewise_constant"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["PiecewiseConstant", "clean_mask", "label_components", "piecewise_constant"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'segmentation' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
