"""Piecewise polynomials with free break points, as a fit and as a differentiable layer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splines.fit import PiecewiseFit, PiecewisePolynomial, fit_piecewise

_MODULE = dict.fromkeys(("PiecewiseFit", "PiecewisePolynomial", "fit_piecewise"), "splines.fit")

__all__ = ["PiecewiseFit", "PiecewisePolynomial", "fit_piecewise"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'splines' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
