"""Segmentation of images: connected components, a differentiable piecewise-constant layer, training and measures.

Names are loaded when first used, so that `import segmentation` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.support.training.plan import Training
    from segmentation.components import clean_mask, label_components
    from segmentation.datasets import ImageSet, augment, read_images, split, synthetic_nuclei
    from segmentation.layer import PiecewiseConstant, piecewise_constant
    from segmentation.metrics import (
        boundary_f,
        false_components,
        holes,
        jaccard,
        measures,
        object_f1,
        pooled_jaccard,
    )
    from segmentation.prediction import predict_masks
    from segmentation.training import train_segmentation

_HOME = {
    "segmentation.components": ("clean_mask", "label_components"),
    "segmentation.datasets": ("ImageSet", "augment", "read_images", "split", "synthetic_nuclei"),
    "segmentation.layer": ("PiecewiseConstant", "piecewise_constant"),
    "segmentation.metrics": (
        "boundary_f",
        "false_components",
        "holes",
        "jaccard",
        "measures",
        "object_f1",
        "pooled_jaccard",
    ),
    "segmentation.prediction": ("predict_masks",),
    "segmentation.training": ("train_segmentation",),
    "fem.support.training.plan": ("Training",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ImageSet",
    "PiecewiseConstant",
    "Training",
    "augment",
    "boundary_f",
    "clean_mask",
    "false_components",
    "holes",
    "jaccard",
    "label_components",
    "measures",
    "object_f1",
    "piecewise_constant",
    "pooled_jaccard",
    "predict_masks",
    "read_images",
    "split",
    "synthetic_nuclei",
    "train_segmentation",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'segmentation' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
