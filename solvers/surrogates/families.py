"""Families of diffusivity fields ν(x; ω), positive and made anew wherever they are needed: nothing is stored.

Coefficients ω come from a quasi-random sequence or a generator, by their number in the sequence, so that a run that
stops can go on where it was; fields are computed on the device of the points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from fem.support.cache import Store
from fem.support.checks import check_choice, check_floats, check_integers, check_kind, check_numbers
from fem.support.modes import outside_modes

# Sequences stay where they were left: going there takes time in proportion to the number.
_sequences = Store("quasi-random sequences", 16)


@dataclass(frozen=True)
class ExponentialSeries:
    """ν(x; ω) = exp Σᵢ ωᵢ λᵢ ξᵢ(x₁) ξᵢ(x₂) …,  ξᵢ(t) = (aᵢ/2) cos aᵢt + sin aᵢt,  λᵢ = 1 / (1 + aᵢ²/4).

    The first terms of a Karhunen–Loève expansion of log ν with exponential covariance on the unit square (Cho et al.,
    2021, eq. 14); ω is uniform in [−bound, bound]ᵐ.

    Args:
        frequencies: aᵢ, one for each term.
        bound: of each ωᵢ.

    Raises:
        ValueError, TypeError: settings out of range.
    """

    frequencies: Sequence[float] = (1.72, 4.05, 6.85, 9.82)
    bound: float = 3.0

    def __post_init__(self):
        wanted = "a sequence of one or more numbers"
        check_kind("ExponentialSeries", "frequencies", self.frequencies or None, Sequence, wanted)
        frequencies: dict[str, Any] = {f"frequencies[{i}]": a for i, a in enumerate(self.frequencies)}
        check_numbers("ExponentialSeries", "finite", **frequencies)
        check_numbers("ExponentialSeries", "positive", bound=self.bound)

    @property
    def size(self) -> int:
        """How many coefficients a field has."""
        return len(self.frequencies)

    def sample(self, count: int, start: int = 0, seed: int = 0, like: Tensor | None = None) -> Float[Tensor, "b m"]:
        """ω number start, …, start + count − 1 of a scrambled Sobol sequence."""
        check_integers("ExponentialSeries.sample", 0, count=count, start=start)
        check_integers("ExponentialSeries.sample", None, seed=seed)
        if like is not None:
            check_floats("ExponentialSeries.sample", "like", like, "None or a tensor")
        engine = _sequences.take((self.size, seed)) or SobolEngine(self.size, scramble=True, seed=seed)
        if start < engine.num_generated:
            engine.reset()
        if start > engine.num_generated:
            engine.fast_forward(start - engine.num_generated)
        unit = (
            engine.draw(count, dtype=torch.float64)
            if count
            else torch.empty(0, self.size, dtype=torch.float64, device="cpu")
        )
        _sequences.put((self.size, seed), engine)
        omega = self.bound * (2 * unit - 1)
        return omega if like is None else omega.to(like)

    @outside_modes
    def log(self, omega: Float[Tensor, "*b m"], x: Float[Tensor, "*n d"]) -> Tensor:
        """log ν "*b *n" at points x."""
        check_coefficients("ExponentialSeries", omega, self.size, x)
        a = torch.tensor(self.frequencies, dtype=x.dtype, device=x.device)
        angle = a * x[..., None]  # "*n d m"
        terms = (0.5 * a * angle.cos() + angle.sin()).prod(-2) / (1 + 0.25 * a**2)
        return combined(omega.to(terms), terms)

    def __call__(self, omega: Float[Tensor, "*b m"], x: Float[Tensor, "*n d"]) -> Tensor:
        """ν "*b *n" at points x."""
        return self.log(omega, x).exp()


@dataclass(frozen=True)
class GaussianField:
    """ν = exp g with g a Gaussian field on the unit interval, square or cube, of zero mean and given deviation.

    g = Σ_k √s_k ω_k Π_d cos(π k_d x_d), s_k ∝ (1 + (length π |k|)²)^(−smoothness − d/2): a Matérn spectrum with free
    sides, without the constant, cut off at `modes` in each direction.

    Args:
        dim: 1, 2 or 3.
        length: distance over which values are alike, the unit being the side of the domain.
        smoothness: how often g can be differentiated.
        deviation: root mean square of g.
        modes: cosines along each axis, the constant among them: at least 2.

    Raises:
        ValueError: settings out of range.
    """

    dim: int = 2
    length: float = 0.2
    smoothness: float = 2.0
    deviation: float = 1.0
    modes: int = 16

    def __post_init__(self):
        check_choice("GaussianField", "dim", self.dim, (1, 2, 3))
        check_numbers("GaussianField", "positive", length=self.length)
        check_numbers("GaussianField", "non-negative", smoothness=self.smoothness, deviation=self.deviation)
        check_integers("GaussianField", 2, modes=self.modes)

    @property
    def size(self) -> int:
        return self.modes**self.dim - 1

    def sample(self, count: int, start: int = 0, seed: int = 0, like: Tensor | None = None) -> Float[Tensor, "b m"]:
        """Normal ω, number start, …, start + count − 1: each has a generator of its own."""
        check_integers("GaussianField.sample", 0, count=count, start=start)
        check_integers("GaussianField.sample", None, seed=seed)
        if like is not None:
            check_floats("GaussianField.sample", "like", like, "None or a tensor")
        rows = []
        for number in range(start, start + count):
            generator = torch.Generator().manual_seed((2654435761 * seed + number) % 2**32)
            rows.append(torch.randn(self.size, generator=generator, dtype=torch.float64, device="cpu"))
        omega = torch.stack(rows) if rows else torch.empty(0, self.size, dtype=torch.float64, device="cpu")
        return omega if like is None else omega.to(like)

    @outside_modes
    def log(self, omega: Float[Tensor, "*b m"], x: Float[Tensor, "*n d"]) -> Tensor:
        """log ν "*b *n" at points x."""
        check_coefficients("GaussianField", omega, self.size, x)
        if x.shape[-1] != self.dim:
            raise ValueError(f"this field lives in {self.dim} dimensions; got points x of shape {tuple(x.shape)}.")
        k = torch.tensor(list(product(range(self.modes), repeat=self.dim))[1:], dtype=x.dtype, device=x.device)
        weight = (1 + (self.length * pi) ** 2 * k.square().sum(-1)) ** (-self.smoothness - 0.5 * self.dim)
        mean_square = 0.5 ** (k > 0).sum(-1).to(x)  # of each product of cosines
        scale = self.deviation * (weight / (weight * mean_square).sum()).sqrt()
        lines = torch.cos(pi * x[..., None] * torch.arange(self.modes, dtype=x.dtype, device=x.device))  # "*n d k"
        terms = lines[..., 0, :]
        for axis in range(1, self.dim):
            terms = (terms[..., :, None] * lines[..., axis, None, :]).flatten(-2)
        return combined(omega.to(terms) * scale, terms[..., 1:])

    def __call__(self, omega: Float[Tensor, "*b m"], x: Float[Tensor, "*n d"]) -> Tensor:
        """ν "*b *n" at points x."""
        return self.log(omega, x).exp()


def combined(omega: Float[Tensor, "*b m"], terms: Float[Tensor, "*n m"]) -> Tensor:
    """Σ_m ω_m terms_m "*b *n"."""
    return (omega @ terms.reshape(-1, terms.shape[-1]).mT).reshape(omega.shape[:-1] + terms.shape[:-1])


def check_coefficients(call: str, omega: Tensor, size: int, x: Tensor) -> None:
    """Raise where a field is given other coefficients than it has, or points that are no floating-point numbers."""
    check_kind(call, "omega", omega, Tensor, "a tensor of coefficients (*b, m)")
    check_floats(call, "x", x, "a tensor of points (*n, d)")
    if omega.shape[-1:] != (size,):
        raise ValueError(f"a field of this family has {size} coefficients; got ω of shape {tuple(omega.shape)}.")
