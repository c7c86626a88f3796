"""Loops take fewer threads while others hold the cores, and nobody's setting is lost. Clocks are set by hand."""

import itertools
from collections.abc import Iterator

import pytest
import torch

from fem.support import threads
from fem.support.threads import ALONE, Cores, alone_if_small, num_threads, sharing_cores, watch


class Clocks:
    """A wall and a processor that advance when told."""

    def __init__(self):
        self.wall = self.processor = 0.0

    def loop(self, wall: float, processor: float) -> str:
        self.wall, self.processor = self.wall + wall, self.processor + processor
        return "done"


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    clocks, before = Clocks(), torch.get_num_threads()
    monkeypatch.setattr(threads, "perf_counter", lambda: clocks.wall)
    monkeypatch.setattr(threads, "process_time", lambda: clocks.processor)
    monkeypatch.setattr(threads, "cores", Cores())
    torch.set_num_threads(4)
    yield clocks
    torch.set_num_threads(before)


def test_as_many_threads_as_cores_were_there(clocks):
    assert num_threads() == 4
    assert watch(clocks.loop, 4, 0.01, 0.0395) == "done"
    assert num_threads() == 4
    watch(clocks.loop, 4, 0.01, 0.021)  # two of four cores
    assert num_threads() == 2
    assert torch.get_num_threads() == 4
    watch(clocks.loop, 4, 0.01, 0.001)
    assert num_threads() == 1


def test_all_threads_are_tried_again_and_again_but_less_and_less_often(clocks):
    waits = []
    for _ in range(8):
        watch(clocks.loop, 4, 0.01, 0.01)
        start = clocks.wall
        while num_threads() == 1:
            clocks.loop(0.05, 0)
        waits.append(clocks.wall - start)
    assert waits[0] == pytest.approx(threads.PAUSE, abs=0.06)
    assert max(waits) < threads.LONGEST_PAUSE + 0.06
    assert all(a <= b + 0.06 for a, b in itertools.pairwise(waits))
    for _ in range(9):
        watch(clocks.loop, 4, 0.01, 0.04)
    watch(clocks.loop, 4, 0.01, 0.01)
    clocks.loop(threads.PAUSE, 0)
    assert num_threads() == 4  # quiet cores are trusted again


def test_short_loops_say_nothing(clocks):
    for _ in range(1000):
        watch(clocks.loop, 4, threads.SHORTEST / 2, 0)
    assert num_threads() == 4


def test_operations_of_pytorch_follow_inside_and_are_as_before_afterwards(clocks):
    @sharing_cores
    def inside() -> int:
        return torch.get_num_threads()

    @sharing_cores
    def failing() -> None:
        watch(clocks.loop, 4, 0.01, 0.01)
        assert num_threads() == 1 == torch.get_num_threads() == inside()
        raise KeyError("torn down")

    assert inside() == 4
    with pytest.raises(KeyError, match="torn down"):
        failing()
    assert torch.get_num_threads() == 4
    assert num_threads() == 1 == inside()
    clocks.loop(2 * threads.PAUSE, 0)
    assert inside() == 4


def test_one_thread_does_what_is_small(clocks):
    @sharing_cores
    def inside(numbers: int) -> tuple[int, int]:
        alone_if_small(numbers)
        return num_threads(), torch.get_num_threads()

    assert inside(ALONE) == (1, 1)
    assert inside(ALONE + 1) == (4, 4)
    alone_if_small(1)  # nobody would set it back
    assert num_threads() == 4 == torch.get_num_threads()
