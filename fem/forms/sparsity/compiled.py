"""Sparsity patterns by C code of a fixed number of passes over element matrices (`sparsity.c`)."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from fem.support.c_function import CFunction, c_text

PASSES = 3  # over all entries of all element matrices


def compiled_pattern(blocks: Sequence[Tensor], n: int) -> tuple[Tensor, Tensor, list[Tensor]] | None:
    """CSR rows and columns, and where the entries "e A A" of each block's element matrices go; None if not compiled.

    Args:
        blocks: dofs "e A" below n of the cells of each block, on the CPU.
    """
    sizes = [dofs.numel() * dofs.shape[1] for dofs in blocks]
    total = sum(sizes)
    dtype = torch.int32 if total < 2**31 else torch.int64
    function = CFunction(c_text("fem.forms.sparsity", "sparsity.c"), P=dtype)
    if not function.ready(PASSES * total):
        return None
    room = lambda count, like=torch.int64: torch.empty(count, dtype=like, device="cpu")  # noqa: E731
    dofs = torch.cat([d.flatten() for d in blocks])
    base = list(accumulate((d.numel() for d in blocks), initial=0))
    start, crow = (torch.zeros(n + 1, dtype=torch.int64, device="cpu") for _ in range(2))
    cells, stamp, position = room(len(dofs)), room(n), room(total, dtype)
    given = n, len(blocks), base, [d.shape[1] for d in blocks], dofs, start, cells, stamp, crow
    first = list(accumulate(sizes, initial=0))
    function(0, *given, None, None, None, first)
    column, unsorted = room(int(crow[-1])), room(int(crow[-1]))
    function(1, *given, column, unsorted, position, first)
    parts = position.split(sizes)
    return crow, column, [p.view(*d.shape, d.shape[1]) for p, d in zip(parts, blocks, strict=True)]
