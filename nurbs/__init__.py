"""NURBS curves, surfaces and volumes, differentiable in everything that defines them.

Names are loaded when first used, so that `import nurbs` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nurbs.curve import Curve
    from nurbs.errors import GeometryError
    from nurbs.files import read_geometry, write_geometry
    from nurbs.plotting import plot
    from nurbs.primitives import (
        annulus,
        arc,
        circle,
        compatible,
        cylinder,
        disk,
        extrude,
        line,
        revolve,
        ruled,
        sphere,
        torus,
    )
    from nurbs.rearrangement import permute, reparametrize, reverse, transform
    from nurbs.refinement import bezier, clamp, elevate_degree, insert_knots, refine, restrict, split
    from nurbs.simplification import reduce_degree, remove_knots
    from nurbs.surface import Surface
    from nurbs.tessellation import tessellate
    from nurbs.volume import Volume

_HOME = {
    "nurbs.curve": ("Curve",),
    "nurbs.errors": ("GeometryError",),
    "nurbs.files": ("read_geometry", "write_geometry"),
    "nurbs.plotting": ("plot",),
    "nurbs.primitives": (
        "annulus",
        "arc",
        "circle",
        "compatible",
        "cylinder",
        "disk",
        "extrude",
        "line",
        "revolve",
        "ruled",
        "sphere",
        "torus",
    ),
    "nurbs.rearrangement": (
        "permute",
        "reparametrize",
        "reverse",
        "transform",
    ),
    "nurbs.refinement": (
        "bezier",
        "clamp",
        "elevate_degree",
        "insert_knots",
        "refine",
        "restrict",
        "split",
    ),
    "nurbs.simplification": (
        "reduce_degree",
        "remove_knots",
    ),
    "nurbs.surface": ("Surface",),
    "nurbs.tessellation": ("tessellate",),
    "nurbs.volume": ("Volume",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Curve",
    "GeometryError",
    "Surface",
    "Volume",
    "annulus",
    "arc",
    "bezier",
    "circle",
    "clamp",
    "compatible",
    "cylinder",
    "disk",
    "elevate_degree",
    "extrude",
    "insert_knots",
    "line",
    "permute",
    "plot",
    "read_geometry",
    "reduce_degree",
    "refine",
    "remove_knots",
    "reparametrize",
    "restrict",
    "reverse",
    "revolve",
    "ruled",
    "sphere",
    "split",
    "tessellate",
    "torus",
    "transform",
    "write_geometry",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'nurbs' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
