"""Buffers that lie with a space serve one solver after another, and never two at a time."""

import copy

import torch

from fem import FunctionSpace, Lagrange, unit_square
from solvers.operators.workspace import Buffers, Workspace, workspace_of

LIKE = torch.zeros((), dtype=torch.float64)


class Solver:
    def __init__(self, workspace):
        self.memory = workspace.buffers(self, "work")


def test_buffers_come_back_clean_in_the_order_in_which_they_were_asked_for():
    memory = Buffers()
    first, second = memory.zeros(LIKE, 3), memory.zeros(LIKE, 2, 2, dtype=torch.float32)
    assert second.dtype == torch.float32
    first += 1
    memory.rewind()
    assert memory.zeros(LIKE, 3) is first
    assert not first.any()
    assert memory.zeros(LIKE, 2, 2, dtype=torch.float32) is second
    memory.rewind()
    assert memory.zeros(LIKE, 4) is not first  # another shape, and all that follows is given up
    assert memory.zeros(LIKE, 2, 2, dtype=torch.float32) is not second


def test_the_next_owner_gets_the_buffers_only_when_the_last_is_gone():
    workspace = Workspace()
    one = Solver(workspace)
    buffer = one.memory.zeros(LIKE, 5)
    two = Solver(workspace)
    assert two.memory is not one.memory
    del one
    assert Solver(workspace).memory.zeros(LIKE, 5) is buffer


def test_each_space_has_its_own_and_copies_are_empty():
    V, W = (FunctionSpace(unit_square(2), Lagrange(1)) for _ in range(2))
    assert workspace_of(V) is workspace_of(V)
    assert workspace_of(V) is not workspace_of(W)
    workspace_of(V).hierarchies.append(object())
    assert not copy.deepcopy(workspace_of(V)).hierarchies
