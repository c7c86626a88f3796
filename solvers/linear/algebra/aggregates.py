"""Aggregates of nodes that are strongly coupled, by C code or by a few passes over all couplings: the same ones.

Roots are a maximal set of nodes of which no two are within two couplings of each other, found in a random order
(Bell, Dalton and Olson, Exposing fine-grained parallelism in algebraic multigrid methods, SIAM Journal on Scientific
Computing 34, 2012). Their neighbours belong to them, and the others to the aggregate they are coupled to most.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.support.c_function import CFunction, c_text
from solvers.linear.algebra.blocks import BlockMatrix

PASSES = 4  # over all couplings


def aggregates(matrix: BlockMatrix, theta: float) -> tuple[Int[Tensor, "n"], int]:
    """The number of each node's aggregate, −1 of isolated nodes, and how many there are.

    Args:
        theta: couplings ‖a_ij‖ below this times √(‖a_ii‖ ‖a_jj‖) do not count.
    """
    n, square = matrix.rows, matrix.values.square().sum((1, 2))
    row = matrix.row
    own = square.new_zeros(n).index_add(0, row, torch.where(row == matrix.column, square, 0)).sqrt()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu")
    function = CFunction(c_text("solvers.linear.algebra", "aggregates.c"))
    if function.ready(PASSES * len(matrix.column)):
        found, room = (torch.zeros(n, dtype=torch.int32, device="cpu") for _ in range(2))
        count = function(n, theta**2, matrix.crow, matrix.column, square, own, order, found, room)
        return found, count
    column = matrix.column.long()
    edge = (row != column) & (square >= theta**2 * own[row] * own[column]) & (square > 0)
    return by_passes(row[edge].long(), column[edge], (square / own[column])[edge], order)


def by_passes(
    row: Int[Tensor, "m"], column: Int[Tensor, "m"], strength: Float[Tensor, "m"], order: Int[Tensor, "n"]
) -> tuple[Int[Tensor, "n"], int]:
    """The same of a graph, by passes over all of its edges."""
    n = len(order)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n, device=order.device)

    def least(v: Tensor) -> Tensor:
        """The least value at a node and its neighbours."""
        return v.scatter_reduce(0, row, v[column], "amin")

    isolated = torch.bincount(row, minlength=n) == 0
    waiting, root = ~isolated, torch.zeros_like(isolated)
    while bool(waiting.any()):
        key = torch.where(waiting, rank, n)
        root |= waiting & (least(least(key)) == rank)
        near = least(least(torch.where(root, 0, 1))) == 0
        waiting &= ~near
    found = torch.where(root, root.cumsum(0) - 1, -1)
    count = int(root.sum())
    number = rank[root].argsort().argsort()  # roots are counted in the order in which they were found
    found = torch.where(root, number[found.clamp(min=0)] if count else found, -1)
    for _ in range(2):
        open_ = (found[row] < 0) & (found[column] >= 0)
        r, c, s = row[open_], column[open_], strength[open_]
        most = s.new_zeros(n).scatter_reduce(0, r, s, "amax")
        best = torch.nonzero(s == most[r]).flatten()
        first = torch.full((n,), len(r), device=r.device).scatter_reduce(0, r[best], best, "amin")
        joined = torch.nonzero(first < len(r)).flatten()
        found = found.index_copy(0, joined, found[c[first[joined]]])
    return found.int(), count
