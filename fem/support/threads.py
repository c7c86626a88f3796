"""How many threads a computation takes: as many as PyTorch has, and fewer while other programs hold the cores.

Threads that share a loop meet at its end, and OpenMP lets them wait there by spinning. Where another program wants a
core too, each such meeting can last a time slice, and a solve on two threads ten times as long as on one. It shows in
the processor time: a loop that keeps n threads at work for w seconds takes n w of it where it gets its cores.
Compiled loops are watched for that (`watch`, called by `fem.support.c_function`). When cores are missing, as many
threads as there were cores are taken for a while, before all of them are tried again. And what is small (`ALONE`) is
done by one thread: meeting after each of hundreds of operations costs more than they do.
"""

from collections.abc import Callable
from functools import wraps
from threading import local
from time import perf_counter, process_time
from typing import Any

import torch

SHORTEST = 1e-4  # seconds of a loop that is looked at: below, clocks and the start of threads count
ENOUGH = 5e-3  # seconds of loops from which it is judged
MISSING = 0.4  # cores
PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds until all threads are tried again
ALONE = 5000  # numbers in a dof tensor up to which one thread is fastest


class Cores:
    """What is known of the cores that this process gets."""

    def __init__(self) -> None:
        self.wall = self.processor = self.until = 0.0
        self.there, self.pause = 1, PAUSE

    def at_most(self, threads: int) -> int:
        """So many threads, or fewer."""
        return min(threads, self.there) if perf_counter() < self.until else threads

    def seen(self, threads: int, wall: float, processor: float) -> None:
        """A loop on so many threads took so many seconds, and of all processors together so many."""
        self.wall, self.processor = self.wall + wall, self.processor + processor
        if self.wall < ENOUGH:
            return
        got = self.processor / self.wall
        self.wall = self.processor = 0.0
        if got > threads - MISSING:
            self.pause = max(self.pause / 2, PAUSE)
        else:
            self.there, self.until = max(int(got + MISSING / 2), 1), perf_counter() + self.pause
            self.pause = min(2 * self.pause, LONGEST_PAUSE)


cores = Cores()
_here = local()  # inside `sharing_cores` `given`, PyTorch's number of threads as the user set it, and `most`


def num_threads() -> int:
    """For the next loop; inside `sharing_cores` PyTorch's operations follow."""
    given = getattr(_here, "given", None)
    threads = cores.at_most(torch.get_num_threads() if given is None else _here.most)
    if given is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    return threads


def alone_if_small(numbers: int) -> None:
    """One thread until the enclosing `sharing_cores` ends, if dof tensors are that small."""
    if getattr(_here, "given", None) is not None and numbers <= ALONE:
        _here.most = 1
        num_threads()


def watch(loop: Callable[..., Any], threads: int, *args: Any) -> Any:
    """What a loop returns that keeps all threads at work; it counts for how many threads the next ones get."""
    start, used = perf_counter(), process_time()
    result = loop(*args)
    wall = perf_counter() - start
    if wall > SHORTEST:
        cores.seen(threads, wall, process_time() - used)
    return result


def sharing_cores(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's PyTorch operations take no more threads than its compiled loops; afterwards all is as before."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if getattr(_here, "given", None) is not None:
            return function(*args, **options)
        _here.given = _here.most = torch.get_num_threads()
        try:
            num_threads()
            return function(*args, **options)
        finally:
            given, _here.given = _here.given, None
            if given != torch.get_num_threads():
                torch.set_num_threads(given)

    return call
