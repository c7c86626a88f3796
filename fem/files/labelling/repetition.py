"""Cells that a file of Gmsh lists once for each of their groups (MSH 2) are one cell that is in all of them."""

from typing import Any

import numpy as np
import torch

from fem.mesh.topology import unique_rows


def once(contents: Any, blocks: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """The blocks with every cell once; data and sets of `contents` follow.

    A cell that stands twice in one group, or twice in none, stays, for `Mesh` to refuse: the file is damaged.
    """
    keep = [np.ones(len(rows), dtype=bool) for _, rows in blocks]
    sets = {name: [np.asarray(chosen, dtype=np.int64) for chosen in own] for name, own in contents.cell_sets.items()}
    for kind in dict.fromkeys(name for name, _ in blocks):
        own = [i for i, (name, _) in enumerate(blocks) if name == kind]
        starts = np.cumsum([0, *(len(blocks[i][1]) for i in own)])
        members = {
            name: np.concatenate([start + parts[i] for i, start in zip(own, starts[:-1], strict=True)])
            for name, parts in sets.items()
        }
        stands_for = representatives(np.concatenate([blocks[i][1] for i in own]), list(members.values()))
        kept = stands_for == np.arange(len(stands_for))
        if kept.all():
            continue
        place = np.cumsum(kept) - 1
        new = np.concatenate([[0], np.cumsum(kept)])[starts]
        for k, i in enumerate(own):
            keep[i] = kept[starts[k] : starts[k + 1]]
            for name, parts in sets.items():
                chosen = np.unique(place[stands_for[members[name]]])
                parts[i] = chosen[(chosen >= new[k]) & (chosen < new[k + 1])] - new[k]
    if all(part.all() for part in keep):
        return blocks
    contents.cell_sets = sets
    contents.cell_data = {
        key: [np.asarray(values)[part] for values, part in zip(several, keep, strict=True)]
        for key, several in contents.cell_data.items()
    }
    return [(name, rows[part]) for (name, rows), part in zip(blocks, keep, strict=True)]


def representatives(rows: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """The first row with the same numbers in any order, for each row; itself where it is in a group with another."""
    itself = np.arange(len(rows))
    if len(rows) == 0:
        return itself
    number, first = (t.numpy() for t in unique_rows(torch.from_numpy(np.sort(rows, 1) - rows.min()).long()))
    stands_for = first[number]
    none = np.setdiff1d(itself, np.concatenate([np.empty(0, dtype=np.int64), *groups]))
    for group in (*groups, none):
        again = np.ones(len(group), dtype=bool)
        again[np.unique(number[group], return_index=True)[1]] = False
        stands_for[group[again]] = group[again]
    return stands_for
