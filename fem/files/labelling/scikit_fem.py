"""Names that scikit-fem writes as data of cells: `skfem:b:NAME` counts the facets of each cell that bear a name as bits
of a number, `skfem:s:NAME` is 1 in the cells that do."""

from collections.abc import Mapping, Sequence

import numpy as np

# Facets of its reference cells in the order of the bits, by vertices that stand as in the file.
FACETS = {
    "line": ((0,), (1,)),
    "triangle": ((0, 1), (1, 2), (0, 2)),
    "quad": ((0, 1), (1, 2), (2, 3), (0, 3)),
    "tetra": ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)),
}


def decoded(
    cell_data: Mapping[str, Sequence[np.ndarray]], blocks: Sequence[tuple[str, np.ndarray]]
) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Facets "f v" by name and, block by block, cells by name."""
    facets: dict[str, list[np.ndarray]] = {}
    cells: dict[str, list[np.ndarray]] = {}
    corners = [FACETS.get(kind.rstrip("0123456789"), ()) for kind, _ in blocks]
    for key in filter(is_name, cell_data):
        _, kind, name = key.split(":", 2)
        values = [np.nan_to_num(np.asarray(part, dtype=float)).reshape(-1) for part in cell_data[key]]
        if kind == "s":
            cells[name] = [np.flatnonzero(part) for part in values]
            continue
        for (_, rows), part, own in zip(blocks, values, corners, strict=True):
            for bit, facet in enumerate(own):
                chosen = np.flatnonzero(part.clip(0, 1 << 30).astype(np.int64) & (1 << bit))
                facets.setdefault(name, []).append(rows[chosen][:, list(facet)])
    return facets, cells


def is_name(key: str) -> bool:
    """Whether data of cells are such a name."""
    return key.startswith(("skfem:b:", "skfem:s:")) and len(key) > 8
