"""Ways to minimise an energy: Newton with all kinds of linear solvers, L-BFGS, Adam, networks; and certificates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.weights import load_network, save_network
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
    from solvers.pinn import PINN, deep_ritz, gauss_points, mismatch, strong_form
    from solvers.pinn_fit import Fit, fit_pinn
    from solvers.problems import DiffusionProblems
    from solvers.reduced_basis import ReducedBasis
    from solvers.solution import ConvergenceError, Solution, Status
    from solvers.spectrum import Eigenmodes, eigenmodes
    from solvers.surrogate import Training, train_surrogate
    from solvers.unet import UNet

_HOME = {
    "solvers.algebraic": ("AlgebraicMultigrid",),
    "solvers.certificate": ("Certificate", "Prediction", "certify", "predict"),
    "solvers.descent": ("LBFGS", "Adam"),
    "solvers.direct": ("Direct",),
    "solvers.spectrum": ("Eigenmodes", "eigenmodes"),
    "solvers.families": ("ExponentialSeries", "GaussianField"),
    "solvers.fast_diagonalization": ("FastDiagonalization",),
    "solvers.lift": ("BoundedLift", "Lift"),
    "solvers.linear": ("CG", "Jacobi"),
    "solvers.minimization": ("minimize", "solve"),
    "solvers.multigrid": ("Multigrid",),
    "solvers.muon": ("Muon",),
    "solvers.newton": ("Newton", "forget"),
    "solvers.pinn": ("PINN", "deep_ritz", "gauss_points", "mismatch", "strong_form"),
    "solvers.pinn_fit": ("Fit", "fit_pinn"),
    "solvers.problems": ("DiffusionProblems",),
    "solvers.reduced_basis": ("ReducedBasis",),
    "solvers.solution": ("ConvergenceError", "Solution", "Status"),
    "solvers.surrogate": ("Training", "train_surrogate"),
    "solvers.unet": ("UNet",),
    "fem.weights": ("load_network", "save_network"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CG",
    "LBFGS",
    "PINN",
    "Adam",
    "AlgebraicMultigrid",
    "BoundedLift",
    "Certificate",
    "ConvergenceError",
    "DiffusionProblems",
    "Direct",
    "Eigenmodes",
    "ExponentialSeries",
    "FastDiagonalization",
    "Fit",
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
    "deep_ritz",
    "eigenmodes",
    "fit_pinn",
    "forget",
    "gauss_points",
    "load_network",
    "minimize",
    "mismatch",
    "predict",
    "save_network",
    "solve",
    "strong_form",
    "train_surrogate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
