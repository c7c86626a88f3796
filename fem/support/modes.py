"""The modes of PyTorch that a user may be in, and that change nothing inside: inference and automatic mixed precision.

Default dtypes and devices need no such care: whatever is made here names its own. What is out of reach is PyTorch's own
part of a backward pass that a user starts within `torch.autocast`: in single precision its products are rounded there.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def outside_modes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function runs without a user's `torch.inference_mode()` and `torch.autocast`.

    The former records no derivatives and spoils what is kept, the latter rounds to three digits.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                return call(*args, **options)
        if torch._C._is_any_autocast_enabled():
            kinds = [kind for kind in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(kind)]
            with torch.autocast(kinds[0], enabled=False):
                return call(*args, **options)
        return function(*args, **options)

    return call
