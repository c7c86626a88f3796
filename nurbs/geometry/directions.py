"""The directions of a patch's parameters: their names, settings per direction, and knots of periodic ones."""

from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.support.checks import is_integer

UVW = "uvw"


def per_direction(name: str, value: Any, directions: int, kind: str, wanted: type) -> tuple:
    """The setting `name` of a patch or call `kind` as one value of the type per direction.

    Raises:
        ValueError: neither one value nor one per direction, or values of another type.
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,) * directions
    whole = wanted is int and all(map(is_integer, values))
    if len(values) != directions or not (whole or (wanted is not int and all(isinstance(v, wanted) for v in values))):
        raise ValueError(
            f"`{name}` of a `{kind}` must be one {wanted.__name__} or one per direction ({directions}); got {value!r}."
        )
    return tuple(map(index, values)) if whole else values


def continued(knots: Float[Tensor, "*b m"], degree: int) -> Float[Tensor, "*b m+2*{degree}"]:
    """t_{-p}, …, t_{n+p} from one period t_0, …, t_n."""
    if degree == 0:
        return knots
    period = knots[..., -1:] - knots[..., :1]
    return torch.cat([knots[..., -degree - 1 : -1] - period, knots, knots[..., 1 : degree + 1] + period], -1)
