"""Numbers and points as users write them, as tensors."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor

Number = float | Real[Tensor, "..."]
Vector = Sequence[Number] | Real[Tensor, "..."]
Coordinates = Sequence[Any] | Real[Tensor, "..."]


def floating(call: str, like: Tensor | None = None, **values: Any) -> list[Float[Tensor, "..."]]:
    """The arguments of a call as tensors of one floating-point dtype and device: those of `like`, or of tensors given.

    Of several dtypes the most precise one counts; where no tensor is of floating point, it is float64. A sequence with
    tensors in it is a vector, its components broadcast and stacked along the last axis: gradients flow to them.

    Raises:
        TypeError: what makes no tensor; the argument is named.
    """
    given = list(tensors_in(tuple(values.values()))) if like is None else [like]
    dtypes = [t.dtype for t in given if t.is_floating_point()]
    dtype = reduce(torch.promote_types, dtypes) if dtypes else torch.float64
    device = next((t.device for t in given if t.device.type != "cpu"), given[0].device if given else None)

    def tensor(value: Any) -> Tensor:
        if isinstance(value, Sequence) and any(True for _ in tensors_in(value)):
            return torch.stack(torch.broadcast_tensors(*map(tensor, value)), -1)
        return torch.as_tensor(value, dtype=dtype, device=device)

    found = []
    for name, value in values.items():
        try:
            found.append(tensor(value))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"`{call}({name}=...)` must be numbers or a tensor of them; got {value!r}.") from error
    return found


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested sequences."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from tensors_in(part)
