"""How much at a time: what is made for many items is made for some of them, so that it stays in caches or in memory.

A caller says how many numbers it makes of one item at once: in its largest array, since a few of them are alive
together, or in all of them where memory is what counts. `at_a_time` answers with a number of items. What has to be
large all the same comes from `large_empty`.
"""

import ctypes
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

NEAREST = 2**15  # bytes that stay in the cache nearest to a core
CACHE = 2**20  # bytes of one array that stays in a core's caches together with a few others
MEMORY = 2**27  # bytes of one array that is small beside memory; other devices need as much to be busy
PAGE = 2**21  # bytes of a large page


def at_a_time(width: int, like: Any, roomy: bool = False) -> int:
    """How many items to work on at a time, one at least.

    Args:
        width: numbers made of one item.
        like: a tensor, or anything else with the `dtype` and the `device` of these numbers.
        roomy: portions only have to be small beside memory, because larger ones take fewer or better operations.
    """
    room = CACHE if like.device.type == "cpu" and not roomy else MEMORY
    return max(room // (max(width, 1) * like.dtype.itemsize), 1)


def large_empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Room for numbers of a type and device like another tensor's, in large pages where Linux has them for the asking.

    It hands memory out page by page, as they are first written; in large ones that takes a tenth of the time.
    """
    found = like.new_empty(shape, dtype=dtype)
    size = found.numel() * found.element_size()
    if found.is_cpu and size >= 2 * PAGE and (advise := advice()) is not None:
        start = -(-found.data_ptr() // PAGE) * PAGE
        end = (found.data_ptr() + size) // PAGE * PAGE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 14)  # MADV_HUGEPAGE; a refusal does no harm
    return found


def large_zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """The same, filled with zeros."""
    return large_empty(like, *shape, dtype=dtype).zero_()


@cache
def advice() -> Any:
    """The C library's `madvise`, on Linux."""
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
