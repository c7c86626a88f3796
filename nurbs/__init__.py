"""NURBS curves, surfaces and volumes, differentiable in everything that defines them.

Names are loaded when first used, so that `import nurbs` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nurbs.alternation import FitStatus
    from nurbs.curve import Curve
    from nurbs.distances import chamfer, hausdorff, laplacian, nearest, squared_distance
    from nurbs.errors import GeometryError
    from nurbs.files import read_geometry, write_geometry
    from nurbs.fit import fit_curve, fit_surface
    from nurbs.frames import Frame, cloud_frame, flat_patch
    from nurbs.isogeometric import isogeometric_space
    from nurbs.parametrization import parametrize, parametrize_grid
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
    from nurbs.projection import foot_points
    from nurbs.random_patches import RandomPatches, area_parameters
    from nurbs.rearrangement import permute, reparametrize, reverse, transform
    from nurbs.reconstruction import (
        control_point_loss,
        control_points_of,
        fit_clouds,
        reconstruction_loss,
        surface_distance,
        surface_points,
        train_reconstruction,
    )
    from nurbs.refinement import bezier, clamp, elevate_degree, insert_knots, refine, restrict, split
    from nurbs.simplification import reduce_degree, remove_knots
    from nurbs.solids import ball_patches, disk_patches
    from nurbs.spline_net import SplineNet
    from nurbs.spline_space import SplineSpace
    from nurbs.surface import Surface
    from nurbs.tessellation import tessellate
    from nurbs.volume import Volume

_HOME = {
    "nurbs.alternation": ("FitStatus",),
    "nurbs.curve": ("Curve",),
    "nurbs.distances": (
        "chamfer",
        "hausdorff",
        "laplacian",
        "nearest",
        "squared_distance",
    ),
    "nurbs.errors": ("GeometryError",),
    "nurbs.solids": ("ball_patches", "disk_patches"),
    "nurbs.isogeometric": ("isogeometric_space",),
    "nurbs.spline_space": ("SplineSpace",),
    "nurbs.files": (
        "read_geometry",
        "write_geometry",
    ),
    "nurbs.fit": (
        "fit_curve",
        "fit_surface",
    ),
    "nurbs.frames": (
        "Frame",
        "cloud_frame",
        "flat_patch",
    ),
    "nurbs.parametrization": (
        "parametrize",
        "parametrize_grid",
    ),
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
    "nurbs.projection": ("foot_points",),
    "nurbs.random_patches": (
        "RandomPatches",
        "area_parameters",
    ),
    "nurbs.rearrangement": (
        "permute",
        "reparametrize",
        "reverse",
        "transform",
    ),
    "nurbs.reconstruction": (
        "control_point_loss",
        "control_points_of",
        "fit_clouds",
        "reconstruction_loss",
        "surface_distance",
        "surface_points",
        "train_reconstruction",
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
    "nurbs.spline_net": ("SplineNet",),
    "nurbs.surface": ("Surface",),
    "nurbs.tessellation": ("tessellate",),
    "nurbs.volume": ("Volume",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Curve",
    "FitStatus",
    "Frame",
    "GeometryError",
    "RandomPatches",
    "SplineNet",
    "SplineSpace",
    "Surface",
    "Volume",
    "annulus",
    "arc",
    "area_parameters",
    "ball_patches",
    "bezier",
    "chamfer",
    "circle",
    "clamp",
    "cloud_frame",
    "compatible",
    "control_point_loss",
    "control_points_of",
    "cylinder",
    "disk",
    "disk_patches",
    "elevate_degree",
    "extrude",
    "fit_clouds",
    "fit_curve",
    "fit_surface",
    "flat_patch",
    "foot_points",
    "hausdorff",
    "insert_knots",
    "isogeometric_space",
    "laplacian",
    "line",
    "nearest",
    "parametrize",
    "parametrize_grid",
    "permute",
    "plot",
    "read_geometry",
    "reconstruction_loss",
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
    "squared_distance",
    "surface_distance",
    "surface_points",
    "tessellate",
    "torus",
    "train_reconstruction",
    "transform",
    "write_geometry",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'nurbs' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
