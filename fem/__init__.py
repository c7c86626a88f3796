"""Meshes, elements, function spaces and energies as differentiable tensors.

Names are loaded when first used, so that `import fem` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.constraints.hanging_nodes import hanging_nodes
    from fem.constraints.periodic import Periodic
    from fem.constraints.rigid_motion import RigidMotionFree
    from fem.constraints.slip import Dirichlet
    from fem.constraints.ties import Ties
    from fem.errors import MeshError
    from fem.files.reading import read_mesh
    from fem.forms.constraints import MeanZero
    from fem.forms.energy import Energy, WeakForm
    from fem.forms.integrals import at_quadrature, h1_error, integrate, l2_error
    from fem.forms.parameters import Constant, by_cell_tag
    from fem.mesh.generators import box, unit_cube, unit_interval, unit_square
    from fem.mesh.mesh import Mesh
    from fem.output.lines import plot_line, values_along
    from fem.output.plotting import plot
    from fem.output.projection import project
    from fem.output.vtk import TimeSeries, write_pvd, write_vtk
    from fem.reference.discontinuous import Discontinuous
    from fem.reference.lagrange import Lagrange
    from fem.reference.nodal import CrouzeixRaviart, Mini, Serendipity
    from fem.reference.spline_element import BSpline
    from fem.reference.vector_element import Nedelec, RaviartThomas
    from fem.space.facets.two_sides import average, jump
    from fem.space.field import gradient
    from fem.space.reals import Reals
    from fem.space.space import FunctionSpace, MixedSpace
    from fem.space.tagged_dofs import at_points
    from fem.support.compilation import compilation
    from fem.support.status import ConvergenceError, Status

_HOME = {
    "fem.constraints.hanging_nodes": ("hanging_nodes",),
    "fem.constraints.periodic": ("Periodic",),
    "fem.constraints.rigid_motion": ("RigidMotionFree",),
    "fem.constraints.slip": ("Dirichlet",),
    "fem.constraints.ties": ("Ties",),
    "fem.forms.constraints": ("MeanZero",),
    "fem.reference.spline_element": ("BSpline",),
    "fem.forms.energy": ("Energy", "WeakForm"),
    "fem.errors": ("MeshError",),
    "fem.mesh.generators": ("box", "unit_cube", "unit_interval", "unit_square"),
    "fem.support.compilation": ("compilation",),
    "fem.reference.discontinuous": ("Discontinuous",),
    "fem.reference.lagrange": ("Lagrange",),
    "fem.reference.nodal": ("CrouzeixRaviart", "Mini", "Serendipity"),
    "fem.reference.vector_element": ("Nedelec", "RaviartThomas"),
    "fem.mesh.mesh": ("Mesh",),
    "fem.files.reading": ("read_mesh",),
    "fem.forms.integrals": ("at_quadrature", "h1_error", "integrate", "l2_error"),
    "fem.forms.parameters": ("Constant", "by_cell_tag"),
    "fem.space.field": ("gradient",),
    "fem.space.reals": ("Reals",),
    "fem.output.lines": ("plot_line", "values_along"),
    "fem.output.plotting": ("plot",),
    "fem.output.projection": ("project",),
    "fem.space.space": ("FunctionSpace", "MixedSpace"),
    "fem.space.tagged_dofs": ("at_points",),
    "fem.space.facets.two_sides": ("average", "jump"),
    "fem.output.vtk": ("TimeSeries", "write_pvd", "write_vtk"),
    "fem.support.status": ("ConvergenceError", "Status"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BSpline",
    "Constant",
    "ConvergenceError",
    "CrouzeixRaviart",
    "Dirichlet",
    "Discontinuous",
    "Energy",
    "FunctionSpace",
    "Lagrange",
    "MeanZero",
    "Mesh",
    "MeshError",
    "Mini",
    "MixedSpace",
    "Nedelec",
    "Periodic",
    "RaviartThomas",
    "Reals",
    "RigidMotionFree",
    "Serendipity",
    "Status",
    "Ties",
    "TimeSeries",
    "WeakForm",
    "at_points",
    "at_quadrature",
    "average",
    "box",
    "by_cell_tag",
    "compilation",
    "gradient",
    "h1_error",
    "hanging_nodes",
    "integrate",
    "jump",
    "l2_error",
    "plot",
    "plot_line",
    "project",
    "read_mesh",
    "unit_cube",
    "unit_interval",
    "unit_square",
    "values_along",
    "write_pvd",
    "write_vtk",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULE:
        raise AttributeError(f"module 'fem' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def _version() -> str:
    """That of the installed distribution, or of the source tree that this file stands in."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("ritz")
    except PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[1] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
