"""NURBS curves, surfaces and volumes, differentiable in everything that defines them.

Names are loaded when first used, so that `import nurbs` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nurbs.errors import GeometryError
    from nurbs.files.formats import read_geometry, write_geometry
    from nurbs.fitting.fit import FitStatus, fit_curve, fit_surface
    from nurbs.fitting.foot_points import foot_points
    from nurbs.fitting.parametrization import parametrize, parametrize_grid
    from nurbs.geometry.curve import Curve
    from nurbs.geometry.surface import Surface
    from nurbs.geometry.volume import Volume
    from nurbs.isogeometric.construction import isogeometric_space
    from nurbs.isogeometric.spline_space import SplineSpace
    from nurbs.modelling.multipatch import ball_patches, disk_patches
    from nurbs.modelling.primitives import (
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
    from nurbs.modelling.refinement import bezier, clamp, elevate_degree, insert_knots, refine, restrict, split
    from nurbs.modelling.simplification import reduce_degree, remove_knots
    from nurbs.modelling.transformation import permute, reparametrize, reverse, transform
    from nurbs.output.plotting import plot
    from nurbs.output.tessellation import tessellate
    from nurbs.reconstruction.cloud_fit import fit_clouds
    from nurbs.reconstruction.distances import chamfer, hausdorff, laplacian, nearest, squared_distance
    from nurbs.reconstruction.frames import Frame, cloud_frame, flat_patch
    from nurbs.reconstruction.losses import (
        control_point_loss,
        control_points_of,
        reconstruction_loss,
        surface_distance,
        surface_points,
    )
    from nurbs.reconstruction.random_patches import RandomPatches, area_parameters
    from nurbs.reconstruction.spline_net import SplineNet
    from nurbs.reconstruction.training import train_reconstruction

_HOME = {
    "nurbs.geometry.curve": ("Curve",),
    "nurbs.reconstruction.distances": (
        "chamfer",
        "hausdorff",
        "laplacian",
        "nearest",
        "squared_distance",
    ),
    "nurbs.errors": ("GeometryError",),
    "nurbs.modelling.multipatch": ("ball_patches", "disk_patches"),
    "nurbs.isogeometric.construction": ("isogeometric_space",),
    "nurbs.isogeometric.spline_space": ("SplineSpace",),
    "nurbs.files.formats": (
        "read_geometry",
        "write_geometry",
    ),
    "nurbs.fitting.fit": (
        "FitStatus",
        "fit_curve",
        "fit_surface",
    ),
    "nurbs.reconstruction.cloud_fit": ("fit_clouds",),
    "nurbs.reconstruction.frames": (
        "Frame",
        "cloud_frame",
        "flat_patch",
    ),
    "nurbs.fitting.parametrization": (
        "parametrize",
        "parametrize_grid",
    ),
    "nurbs.output.plotting": ("plot",),
    "nurbs.modelling.primitives": (
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
    "nurbs.fitting.foot_points": ("foot_points",),
    "nurbs.reconstruction.random_patches": (
        "RandomPatches",
        "area_parameters",
    ),
    "nurbs.modelling.transformation": (
        "permute",
        "reparametrize",
        "reverse",
        "transform",
    ),
    "nurbs.reconstruction.losses": (
        "control_point_loss",
        "control_points_of",
        "reconstruction_loss",
        "surface_distance",
        "surface_points",
    ),
    "nurbs.modelling.refinement": (
        "bezier",
        "clamp",
        "elevate_degree",
        "insert_knots",
        "refine",
        "restrict",
        "split",
    ),
    "nurbs.modelling.simplification": (
        "reduce_degree",
        "remove_knots",
    ),
    "nurbs.reconstruction.spline_net": ("SplineNet",),
    "nurbs.reconstruction.training": ("train_reconstruction",),
    "nurbs.geometry.surface": ("Surface",),
    "nurbs.output.tessellation": ("tessellate",),
    "nurbs.geometry.volume": ("Volume",),
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
