"""Small matrices "… d d" at points: trace, deviator, identity; and numbers out of the range of a material."""

from numbers import Real

import torch
from torch import Tensor

Number = float | Tensor


def trace(matrix: Tensor) -> Tensor:
    """tr A "…"."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def identity(like: Tensor) -> Tensor:
    """I "d d"."""
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def scaled(factor: Number, matrix: Tensor) -> Tensor:
    """A number at each point, "…" or one for all, times a matrix "… d d"."""
    return factor[..., None, None] * matrix if isinstance(factor, Tensor) else factor * matrix


def deviator(matrix: Tensor) -> Tensor:
    """dev A = A − tr A / 3 I of "… 3 3": that of the plane would leave out the third direction."""
    if matrix.shape[-1] != 3:
        d = matrix.shape[-1]
        raise ValueError(
            f"deviators are those of matrices of three dimensions; got {d} × {d}: `in_space(strain(grad_u))` for plane "
            "strain."
        )
    return matrix - trace(matrix)[..., None, None] / 3 * identity(matrix)


def check_range(call: str, name: str, value: Number, lower: float, upper: float, remedy: str = "") -> None:
    """Raise where a number given as a number is not between two others; tensors are left to what comes of them."""
    if isinstance(value, Real) and not lower < float(value) < upper:
        limits = f"above {lower:g}" if upper == float("inf") else f"between {lower:g} and {upper:g}, these excluded"
        raise ValueError(f"`{call}({name}=...)` must be {limits}; got {value!r}.{remedy}")
