"""Arithmetic on batches: common shapes, sums of a few tensors, inner products and norms item by item."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def common_batch(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that all of them broadcast to; NumPy tells in a microsecond, PyTorch takes twenty.

    Raises:
        ValueError: shapes that do not go together, named.
    """
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        given = " and ".join(dict.fromkeys(str(tuple(s)) for s in shapes if s))
        raise ValueError(f"batches of shapes {given} do not go together: leading axes must be equal, or 1.") from None


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of a few tensors, without the copy that starting from 0 would cost."""
    total = None
    for term in terms:
        total = term if total is None else total + term
    assert total is not None
    return total


def norm(v: Tensor, lead: int) -> Float[Tensor, "*b"]:
    """Euclidean norm over all but the leading batch axes, where squares would under- or overflow too."""
    flat, info = v.flatten(lead), torch.finfo(v.dtype)
    plain = torch.linalg.vector_norm(flat, dim=-1)
    if not v.is_cuda and bool(((plain > info.tiny**0.5 / info.eps) & (plain < info.max**0.5)).all()):
        return plain
    largest = flat.abs().amax(-1) if flat.shape[-1] else plain
    scaled = (largest > 0) & torch.isfinite(largest)
    unit = torch.linalg.vector_norm(flat / torch.where(scaled, largest, 1)[..., None], dim=-1)
    return torch.where(scaled, largest * unit, largest)


def dot(a: Tensor, b: Tensor, lead: int) -> Float[Tensor, "*b"]:
    """Inner product over all but the leading batch axes."""
    a, b = a.flatten(lead), b.flatten(lead)
    if a.shape == b.shape and a.shape[:-1].numel() == 1:  # by BLAS, in one pass
        return torch.dot(a.reshape(-1), b.reshape(-1)).reshape(a.shape[:-1])
    return torch.linalg.vecdot(a, b)


def per_item(t: Tensor, like: Tensor) -> Tensor:
    """A batch scalar with trailing axes of length one, to multiply dofs with."""
    return t.reshape((*t.shape, *[1] * (like.ndim - t.ndim)))
