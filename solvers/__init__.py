"""Ways to minimise an energy: Newton with all kinds of linear solvers, L-BFGS, Adam, networks; and certificates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.algebraic import AlgebraicMultigrid
    from solvers.certificate import Certificate, Prediction, certify, predict
    from solvers.descent import LBFGS, Adam
    from solvers.direct import Direct
    from solvers.families import ExponentialSeries, GaussianField
    from solvers.fast_diagonalization import FastDiagonalization
    from solvers.lift import BoundedLift, Lift
    from solvers.linear import CG, Jacobi
    from solvers.minimization import minimize, solve
    from solvers.multigrid import Multigrid
    from solvers.muon import Muon
    from solvers.newton import Newton, forget
    from solvers.problems import DiffusionProblems
    from solvers.reduced_basis import ReducedBasis
    from solvers.solution import ConvergenceError, Solution, Status
    from solvers.surrogate import Training, train_surrogate
    from solvers.unet import UNet
    from solvers.weights import load_network, save_network

_HOME = {
    "solvers.weights": (
        "load_network",
        "save_network",
    ),
    "solvers.surrogate": (
        "Training",
        "train_surrogate",
    ),
    "solvers.problems": ("DiffusionProblems",),
    "solvers.muon": ("Muon",),
    "solvers.lift": (
        "BoundedLift",
        "Lift",
    ),
    "solvers.algebraic": ("AlgebraicMultigrid",),
    "solvers.certificate": ("Certificate", "Prediction", "certify", "predict"),
    "solvers.descent": ("LBFGS", "Adam"),
    "solvers.direct": ("Direct",),
    "solvers.fast_diagonalization": ("FastDiagonalization",),
    "solvers.families": ("ExponentialSeries", "GaussianField"),
    "solvers.linear": ("CG", "Jacobi"),
    "solvers.minimization": ("minimize", "solve"),
    "solvers.multigrid": ("Multigrid",),
    "solvers.newton": ("Newton", "forget"),
    "solvers.reduced_basis": ("ReducedBasis",),
    "solvers.solution": ("ConvergenceError", "Solution", "Status"),
    "solvers.unet": ("UNet",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CG",
    "LBFGS",
    "Adam",
    "AlgebraicMultigrid",
    "BoundedLift",
    "Certificate",
    "ConvergenceError",
    "DiffusionProblems",
    "Direct",
    "ExponentialSeries",
    "FastDiagonalization",
    "GaussianField",
    "Jacobi",
    "Lift",
    "Multigrid",
    "Muon",
    "Newton",
    "Prediction",
    "ReducedBasis",
    "Solution",
    "Status",
    "Training",
    "UNet",
    "certify",
    "forget",
    "load_network",
    "minimize",
    "predict",
    "save_network",
    "solve",
    "train_surrogate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
