"""How much at a time: what is made for many items is made for some of them, so that it stays in caches or in memory.

A caller says how many numbers it makes of one item at once: in its largest array, since a few of them are alive
together, or in all of them where memory is what counts. `at_a_time` answers with a number of items.
"""

from typing import Any

NEAREST = 2**15  # bytes that stay in the cache nearest to a core
CACHE = 2**20  # bytes of one array that stays in a core's caches together with a few others
MEMORY = 2**27  # bytes of one array that is small beside memory; other devices need as much to be busy


def at_a_time(width: int, like: Any, roomy: bool = False) -> int:
    """How many items to work on at a time, one at least.

    Args:
        width: numbers made of one item.
        like: a tensor, or anything else with the `dtype` and the `device` of these numbers.
        roomy: portions only have to be small beside memory, because larger ones take fewer or better operations.
    """
    room = CACHE if like.device.type == "cpu" and not roomy else MEMORY
    return max(room // (max(width, 1) * like.dtype.itemsize), 1)
