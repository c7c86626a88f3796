"""Cells that a file lists once for each of their groups are one cell that is in all of them."""

from typing import Any

import numpy as np
import torch

from fem.mesh.topology import unique_rows

GROUPS = "gmsh:physical"  # numbers of groups in the one format that lists cells so, MSH 2


def once(contents: Any, blocks: list[tuple[str, np.ndarray]], dims: list[int]) -> list[tuple[str, np.ndarray]]:
    """The blocks with every cell once; if some are left out, groups become sets of cells of `contents`.

    A cell that stands twice in one group stays, for `Mesh` to refuse: the file is damaged.

    Args:
        dims: the dimension of the cells of each block.
    """
    if GROUPS not in contents.cell_data:
        return blocks
    groups = [np.asarray(values).reshape(-1) for values in contents.cell_data[GROUPS]]
    keep = [np.ones(len(rows), dtype=bool) for _, rows in blocks]
    names = {(int(v[1]), int(v[0])): name for name, v in contents.field_data.items() if np.size(v) == 2}
    sets: dict[str, list[np.ndarray]] = {}
    for kind in dict.fromkeys(name for name, _ in blocks):
        own = [i for i, (name, _) in enumerate(blocks) if name == kind]
        rows, group = np.concatenate([blocks[i][1] for i in own]), np.concatenate([groups[i] for i in own])
        stands_for = representatives(rows, group)
        kept = stands_for == np.arange(len(rows))
        ends = np.cumsum([len(blocks[i][1]) for i in own])[:-1]
        for i, part in zip(own, np.split(kept, ends), strict=True):
            keep[i] = part
        place = np.cumsum(kept) - 1
        starts = np.cumsum([0, *(keep[i].sum() for i in own)])
        for value in np.unique(group[group != 0]):  # Gmsh's 0 means no group
            name = names.get((dims[own[0]], int(value)), str(value))
            several = sets.setdefault(name, [np.zeros(0, dtype=np.int64) for _ in blocks])
            members = np.unique(place[stands_for[group == value]])
            for i, start, stop in zip(own, starts[:-1], starts[1:], strict=True):
                several[i] = members[(members >= start) & (members < stop)] - start
    if all(part.all() for part in keep):
        return blocks
    contents.cell_data = {
        key: [np.asarray(values)[part] for values, part in zip(several, keep, strict=True)]
        for key, several in contents.cell_data.items()
        if key != GROUPS
    }
    contents.cell_sets = sets
    return [(name, rows[part]) for (name, rows), part in zip(blocks, keep, strict=True)]


def representatives(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The first row with the same numbers in any order, for each row; itself where it is in the same group."""
    itself = np.arange(len(rows))
    if len(rows) == 0:
        return itself
    number, first = unique_rows(torch.from_numpy(np.sort(rows, 1) - rows.min()).long())
    pairs = torch.stack([number, torch.from_numpy(group - group.min()).long()], 1)
    listed, first_listed = unique_rows(pairs)
    return np.where(first_listed[listed].numpy() == itself, first[number].numpy(), itself)
