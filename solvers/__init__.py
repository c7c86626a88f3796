"""Ways to minimise an energy: Newton with all kinds of linear solvers, L-BFGS, Adam, networks; and certificates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.support.status import ConvergenceError, Status
    from fem.support.training.network_files import load_network, save_network
    from fem.support.training.plan import Training
    from solvers.adaptation.adapt import Adaptation, adapt
    from solvers.certificates.certificate import Certificate, certify
    from solvers.certificates.prediction import Prediction, predict
    from solvers.continuation.path import Path, follow
    from solvers.descent import LBFGS, Adam
    from solvers.eigenproblem import Eigenmodes, eigenmodes
    from solvers.linear.algebraic_multigrid import AlgebraicMultigrid
    from solvers.linear.blocks.saddle_point import SaddlePoint
    from solvers.linear.conjugate_gradients import CG, Jacobi
    from solvers.linear.direct import Direct
    from solvers.linear.fast_diagonalization import FastDiagonalization
    from solvers.linear.multigrid import Multigrid
    from solvers.minimization import minimize, solve
    from solvers.newton import Newton
    from solvers.pinn.network import PINN, deep_ritz, gauss_points, mismatch, strong_form
    from solvers.pinn.training import Fit, fit_pinn
    from solvers.reactions import reaction
    from solvers.reuse import Reuse, forget
    from solvers.solution import Solution
    from solvers.surrogates.families import ExponentialSeries, GaussianField
    from solvers.surrogates.lift import BoundedLift, Lift
    from solvers.surrogates.muon import Muon
    from solvers.surrogates.problems import DiffusionProblems
    from solvers.surrogates.reduced_basis import ReducedBasis
    from solvers.surrogates.training import train_surrogate
    from solvers.surrogates.unet import UNet
    from solvers.time.evolution import Evolution, evolve
    from solvers.time.methods import BDF2, CrankNicolson, GeneralizedAlpha, ImplicitEuler, Newmark, Theta

_HOME = {
    "solvers.adaptation.adapt": ("Adaptation", "adapt"),
    "solvers.linear.algebraic_multigrid": ("AlgebraicMultigrid",),
    "solvers.linear.blocks.saddle_point": ("SaddlePoint",),
    "solvers.certificates.certificate": ("Certificate", "certify"),
    "solvers.certificates.prediction": ("Prediction", "predict"),
    "solvers.continuation.path": ("Path", "follow"),
    "solvers.descent": ("LBFGS", "Adam"),
    "solvers.linear.direct": ("Direct",),
    "solvers.eigenproblem": ("Eigenmodes", "eigenmodes"),
    "solvers.surrogates.families": ("ExponentialSeries", "GaussianField"),
    "solvers.linear.fast_diagonalization": ("FastDiagonalization",),
    "solvers.surrogates.lift": ("BoundedLift", "Lift"),
    "solvers.linear.conjugate_gradients": ("CG", "Jacobi"),
    "solvers.minimization": ("minimize", "solve"),
    "solvers.linear.multigrid": ("Multigrid",),
    "solvers.surrogates.muon": ("Muon",),
    "solvers.newton": ("Newton",),
    "solvers.pinn.network": ("PINN", "deep_ritz", "gauss_points", "mismatch", "strong_form"),
    "solvers.pinn.training": ("Fit", "fit_pinn"),
    "solvers.surrogates.problems": ("DiffusionProblems",),
    "solvers.surrogates.reduced_basis": ("ReducedBasis",),
    "solvers.reactions": ("reaction",),
    "solvers.reuse": ("Reuse", "forget"),
    "solvers.solution": ("Solution",),
    "solvers.surrogates.training": ("train_surrogate",),
    "fem.support.training.plan": ("Training",),
    "solvers.surrogates.unet": ("UNet",),
    "solvers.time.evolution": ("Evolution", "evolve"),
    "solvers.time.methods": ("BDF2", "CrankNicolson", "GeneralizedAlpha", "ImplicitEuler", "Newmark", "Theta"),
    "fem.support.training.network_files": ("load_network", "save_network"),
    "fem.support.status": ("ConvergenceError", "Status"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BDF2",
    "CG",
    "LBFGS",
    "PINN",
    "Adam",
    "Adaptation",
    "AlgebraicMultigrid",
    "BoundedLift",
    "Certificate",
    "ConvergenceError",
    "CrankNicolson",
    "DiffusionProblems",
    "Direct",
    "Eigenmodes",
    "Evolution",
    "ExponentialSeries",
    "FastDiagonalization",
    "Fit",
    "GaussianField",
    "GeneralizedAlpha",
    "ImplicitEuler",
    "Jacobi",
    "Lift",
    "Multigrid",
    "Muon",
    "Newmark",
    "Newton",
    "Path",
    "Prediction",
    "ReducedBasis",
    "Reuse",
    "SaddlePoint",
    "Solution",
    "Status",
    "Theta",
    "Training",
    "UNet",
    "adapt",
    "certify",
    "deep_ritz",
    "eigenmodes",
    "evolve",
    "fit_pinn",
    "follow",
    "forget",
    "gauss_points",
    "load_network",
    "minimize",
    "mismatch",
    "predict",
    "reaction",
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
