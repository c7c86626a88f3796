"""Shapes of batches."""

from collections.abc import Sequence

import numpy as np


def common_batch(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that all of them broadcast to; NumPy tells in a microsecond, PyTorch takes twenty.

    Raises:
        ValueError: shapes that do not go together, named.
    """
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        given = " and ".join(dict.fromkeys(str(tuple(s)) for s in shapes if s))
        raise ValueError(
            f"batches of shapes {given} do not go together: the leading axes of dofs, parameters and prescribed values "
            "must be equal, or 1."
        ) from None
