"""A mesh as it stands in a file: named as in meshio, whose meshes have the same face."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class RawBlock:
    """Cells of one kind, by meshio's name for it, and the indices of their nodes."""

    type: str
    data: np.ndarray


@dataclass
class RawMesh:
    """Points "n d", blocks of cells of all dimensions, data of points and (block by block) cells, sets of indices.

    Side sets are facets given as tuples "f v" of the points at their vertices; `left_out` says what is not here.
    """

    points: np.ndarray
    cells: list[RawBlock]
    point_data: dict[str, np.ndarray] = field(default_factory=dict)
    cell_data: dict[str, list[np.ndarray]] = field(default_factory=dict)
    point_sets: dict[str, np.ndarray] = field(default_factory=dict)
    cell_sets: dict[str, list[np.ndarray]] = field(default_factory=dict)
    field_data: dict[str, np.ndarray] = field(default_factory=dict)
    side_sets: dict[str, list[np.ndarray]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    links: list[tuple[int, int, int, np.ndarray]] = field(default_factory=list)  # periodic: see `formats.gmsh`
