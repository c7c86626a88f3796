"""The text layout 'smesh' of isogeometric shell analysis: one patch in a file.

Lines: the number of coordinates d; the degrees; the numbers of control points; one knot vector per direction; then one
control point on each line, u fastest, as its Euclidean coordinates and its weight. What may follow (lines of one or two
flags) is passed over. One, two or three degrees make a curve, a surface or a volume.
"""

from math import prod
from pathlib import Path

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.contents import PatchList
from nurbs.files.exchange import (
    make_patch,
    read_integer,
    read_integers,
    read_numbers,
    read_text,
    to_u_fastest,
    u_fastest,
)
from nurbs.geometry.directions import UVW
from nurbs.geometry.patch import Patch


def read(path: Path) -> PatchList:
    lines = [(number, line.split()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    place = 0

    def take(what: str) -> tuple[str, list[str]]:
        nonlocal place
        if place == len(lines):
            raise GeometryError(f"it ends before {what}.")
        number, words = lines[place]
        place += 1
        return f"line {number}, {what}", words

    where, words = take("the number of coordinates")
    dim = read_integer(words, where)
    if not 1 <= dim <= 3:
        raise GeometryError(f"{where}: 1, 2 or 3 was expected; got {dim}.")
    where, words = take("the degrees")
    degree = read_integers(words, where)
    if not 1 <= len(degree) <= 3:
        raise GeometryError(f"{where}: one per direction was expected; got {len(degree)}.")
    where, words = take("the numbers of control points")
    counts = read_integers(words, where)
    if len(counts) != len(degree) or min(counts) < 1:
        raise GeometryError(f"{where}: {len(degree)} positive ones were expected; got {counts}.")
    knots = []
    for name, p, n in zip(UVW, degree, counts, strict=False):
        where, words = take(f"the knots in {name}")
        knots.append(read_numbers(words, where))
        if len(words) != n + p + 1:
            raise GeometryError(f"{where}: {n} + {p} + 1 were expected; got {len(words)}.")
    rows = lines[place : place + prod(counts)]
    for number, words in rows:
        if len(words) != dim + 1:
            raise GeometryError(f"line {number}: {dim} coordinates and a weight were expected; got {len(words)} words.")
    for number, words in lines[place + len(rows) :]:
        if len(words) == dim + 1 > 2:
            raise GeometryError(f"line {number}: more control points than the {prod(counts)} announced.")
    where = f"control points from line {rows[0][0]} on" if rows else "control points"
    table = u_fastest(read_numbers([words for _, words in rows], where), counts, where)
    return PatchList([make_patch(table[..., :-1], table[..., -1], knots, degree, where)])


def write(path: Path, patches: list[Patch]) -> None:
    if len(patches) != 1:
        raise ValueError(f"a file of this layout holds one patch; got {len(patches)}. Write one file for each.")
    (patch,) = patches
    if patch.dim > 3:
        raise ValueError(f"a file of this layout holds at most three coordinates; got {patch.dim}.")
    points, weights = to_u_fastest(patch)
    rows = [[patch.dim], patch.degree, patch.shape, *(t.tolist() for t in patch.knots)]
    rows += np.column_stack([points, weights]).tolist()
    path.write_text("\n".join(" ".join(map(repr, row)) for row in rows) + "\n", encoding="utf-8")
