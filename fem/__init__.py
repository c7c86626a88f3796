"""Meshes, elements, function spaces and energies as differentiable tensors.

Names are loaded when first used, so that `import fem` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.boundary import Dirichlet, MeanZero
    from fem.bspline_element import BSpline
    from fem.energy import Energy, WeakForm
    from fem.errors import MeshError
    from fem.grids import box, unit_cube, unit_interval, unit_square
    from fem.kernel import compilation
    from fem.lagrange import Lagrange
    from fem.mesh import Mesh
    from fem.mesh_files import read_mesh
    from fem.norms import h1_error, integrate, l2_error
    from fem.parameters import Constant, by_cell_tag, gradient
    from fem.plotting import plot
    from fem.space import FunctionSpace, MixedSpace
    from fem.vtk import write_pvd, write_vtk

_HOME = {
    "fem.boundary": ("Dirichlet", "MeanZero"),
    "fem.bspline_element": ("BSpline",),
    "fem.energy": ("Energy", "WeakForm"),
    "fem.errors": ("MeshError",),
    "fem.grids": ("box", "unit_cube", "unit_interval", "unit_square"),
    "fem.kernel": ("compilation",),
    "fem.lagrange": ("Lagrange",),
    "fem.mesh": ("Mesh",),
    "fem.mesh_files": ("read_mesh",),
    "fem.norms": ("h1_error", "integrate", "l2_error"),
    "fem.parameters": ("Constant", "by_cell_tag", "gradient"),
    "fem.plotting": ("plot",),
    "fem.space": ("FunctionSpace", "MixedSpace"),
    "fem.vtk": ("write_pvd", "write_vtk"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BSpline",
    "Constant",
    "Dirichlet",
    "Energy",
    "FunctionSpace",
    "Lagrange",
    "MeanZero",
    "Mesh",
    "MeshError",
    "MixedSpace",
    "WeakForm",
    "box",
    "by_cell_tag",
    "compilation",
    "gradient",
    "h1_error",
    "integrate",
    "l2_error",
    "plot",
    "read_mesh",
    "unit_cube",
    "unit_interval",
    "unit_square",
    "write_pvd",
    "write_vtk",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'fem' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
