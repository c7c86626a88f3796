"""Wavefront OBJ: tessellations with normals and parameters, for renderers and mesh programs; written only.

Quadrilaterals, or lines for curves, with `vt` = (u, v) scaled to [0, 1] and `vn` = S_u × S_v / |S_u × S_v|.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nurbs.files.exchange import in_space
from nurbs.geometry.patch import Patch
from nurbs.output.tessellation import tessellate


def write(path: Path, patches: list[Patch], subdivisions: int) -> None:
    lines, points, normals = ["# polygons on NURBS patches; vt: parameters scaled to [0, 1]"], 1, 1
    for i, patch in enumerate(in_space(patches, "OBJ")):
        mesh = tessellate(patch, subdivisions)
        low, high = (torch.stack(bounds) for bounds in zip(*patch.domain(), strict=True))
        lines += [f"o patch_{i}", *rows("v", mesh.points), *rows("vt", (mesh.parameters - low) / (high - low))]
        corners = [mesh.cells + points] * 2
        if mesh.normals is not None:
            lines += rows("vn", mesh.normals)
            corners.append(mesh.cells + normals)
            normals += len(mesh.normals)
        keyword = "l " if patch.directions == 1 else "f "
        lines += [keyword + " ".join("/".join(map(str, c)) for c in cell) for cell in torch.stack(corners, -1).tolist()]
        points += len(mesh.points)
    path.write_text("\n".join([*lines, ""]), encoding="ascii")


def rows(keyword: str, values: Float[Tensor, "n c"]) -> list[str]:
    return [" ".join([keyword, *map(repr, row)]) for row in values.tolist()]
