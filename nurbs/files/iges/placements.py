"""Transformation matrices of IGES files (124), alone or one after another."""

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.iges.directory import Entity

DEEPEST = 40  # transformations of transformations, subfigures in subfigures


def own_map(entity: Entity, entities: dict[int, Entity]) -> np.ndarray:
    """The map "4 4" that the directory entry of an entity names."""
    matrix, pointer, where, depth = np.eye(4), entity.transformation, entity.where, 0
    while pointer:
        other = entities.get(pointer)
        if other is None or other.kind != 124:
            raise GeometryError(f"{where}: D{pointer} is no transformation.")
        if (depth := depth + 1) > DEEPEST:
            raise GeometryError(f"{where}: its transformations go round in a circle.")
        rows = np.eye(4)
        rows[:3] = other.finite(1, 12).reshape(3, 4)
        matrix, pointer, where = rows @ matrix, other.transformation, other.where
    return matrix
