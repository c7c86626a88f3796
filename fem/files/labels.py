"""Labels in files (groups, sets, numbers of materials) as tags of facets and cells."""

from typing import Any

import numpy as np

from fem.reference.cells import Cell

# Integer cell data that numbers materials or boundary parts, as the common programs call it.
MARKERS = ("gmsh:physical", "medit:ref", "cell_tags", "material", "materialids", "attribute", "region", "subdomain")


def tags(
    contents: Any, blocks: list[tuple[str, np.ndarray]], kinds: list[Cell], dim: int, order: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Facets as vertex tuples and cells as indices, by name; `order` is that of the kinds of cells in the mesh."""
    names = {(int(v[1]), int(v[0])): name for name, v in contents.field_data.items() if np.size(v) == 2}
    marker = next((key for m in MARKERS for key in contents.cell_data if key.lower() == m), None)
    sizes = {
        name: sum(len(rows) for k, (_, rows) in zip(kinds, blocks, strict=True) if k.name == name) for name in order
    }
    start = {name: sum(sizes[before] for before in order[:i]) for i, name in enumerate(order)}
    facets: dict[str, list[np.ndarray]] = {}
    cells: dict[str, list[np.ndarray]] = {}
    for i, (kind, (_, rows)) in enumerate(zip(kinds, blocks, strict=True)):
        if kind.dim < dim - 1:
            continue
        groups = [(name, chosen[i]) for name, chosen in contents.cell_sets.items() if not name.startswith("gmsh:")]
        values = np.asarray(contents.cell_data[marker][i]).reshape(len(rows), -1) if marker is not None else None
        if values is not None and values.shape[1] == 1 and np.issubdtype(values.dtype, np.integer):
            for value in np.unique(values):
                name = names.get((kind.dim, int(value)), str(value))
                # Gmsh's 0 means no group; names of MSH 4 are cell sets already.
                if name not in contents.cell_sets and (value or marker != "gmsh:physical"):
                    groups.append((name, np.flatnonzero(values == value)))
        for name, chosen in groups:
            if chosen is None or len(chosen) == 0:
                continue
            if kind.dim == dim:
                cells.setdefault(name, []).append(start[kind.name] + np.asarray(chosen, dtype=np.int64))
            else:
                facets.setdefault(name, []).append(rows[np.asarray(chosen, dtype=np.int64), : kind.num_vertices])
        if kind.dim == dim:
            start[kind.name] += len(rows)
    widths = {name: max(part.shape[1] for part in parts) for name, parts in facets.items()}
    padded = {
        name: np.concatenate([np.pad(p, ((0, 0), (0, widths[name] - p.shape[1])), constant_values=-1) for p in parts])
        for name, parts in facets.items()
    }
    return padded, {name: np.unique(np.concatenate(parts)) for name, parts in cells.items()}
