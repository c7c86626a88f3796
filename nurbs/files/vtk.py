"""Patches as VTK files for ParaView and its kin: exactly, as rational Bézier cells, or as straight cells on request.

Every non-empty knot span is one Bézier cell (VTK 9 and later), neighbours share their nodes. Where a patch is rational
the point data "RationalWeights" carry the weights, which makes circles and spheres round at any zoom.
"""

import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from nurbs.files.exchange import weights_of
from nurbs.geometry.patch import Patch
from nurbs.modelling.refinement import breakpoints, express
from nurbs.output.tessellation import tessellate

LINEAR, BEZIER = (3, 9, 12), (75, 77, 79)  # VTK's numbers of cells with one, two and three directions
LARGEST_DEGREE = 10  # vtkHigherOrderInterpolation::MaxDegree
RESERVED = ("RationalWeights", "HigherOrderDegrees")


def write(
    path: Path, patches: Sequence[Patch], subdivisions: int | None, fields: Mapping[str, Sequence[Float[Tensor, "..."]]]
) -> None:
    """Write a `.vtu` file: Bézier cells, or straight cells of `tessellate` where `subdivisions` is given.

    Args:
        fields: name → for every patch the coefficients "*n" or "*n c" of Σ w_i f_i N_i / Σ w_i N_i, the functions of
            the patch itself; written as point data, as exactly as the geometry.
    """
    widths = check(patches, subdivisions, fields)
    nodes, weights, cells, count = [], [], [], 0
    for i, patch in enumerate(patches):
        extra = [values[i].to(patch.control_points).reshape(*patch.shape, -1) for values in fields.values()]
        points = torch.cat([pad(patch.control_points, (0, 3 - patch.dim)), *extra], -1)
        patch = patch.replace(control_points=points)
        if subdivisions is None:
            x, w, connectivity = bezier_cells(patch)
            weights.append(w)
        else:
            mesh = tessellate(patch, subdivisions)
            x, connectivity = mesh.points, mesh.cells
        nodes.append(x)
        cells.append(connectivity + count)
        count += len(x)
    numbers = [len(c) for c in cells]
    kinds = BEZIER if subdivisions is None else LINEAR
    points, *data = torch.cat(nodes).split([3, *widths], -1)
    point_data = {name: pad(v, (0, 1)) if v.shape[1] == 2 else v for name, v in zip(fields, data, strict=True)}
    cell_data = {"patch": torch.arange(len(cells), device="cpu").repeat_interleave(torch.tensor(numbers, device="cpu"))}
    if subdivisions is None:
        degrees = torch.tensor([[*patch.degree, 0, 0][:3] for patch in patches], dtype=torch.float64, device="cpu")
        cell_data["HigherOrderDegrees"] = degrees[cell_data["patch"]]
        if any(patch.weights is not None for patch in patches):
            point_data["RationalWeights"] = torch.cat(weights)
    topology = {
        "connectivity": torch.cat([c.flatten() for c in cells]),
        "offsets": torch.cat([torch.full((len(c),), c.shape[1], device="cpu") for c in cells]).cumsum(0),
        "types": torch.cat(
            [torch.full((len(c),), kinds[p.directions - 1], device="cpu") for c, p in zip(cells, patches, strict=True)]
        ),
    }
    sections = [("PointData", point_data), ("CellData", cell_data), ("Points", {"points": points}), ("Cells", topology)]
    path.write_text(
        '<?xml version="1.0"?>\n<VTKFile type="UnstructuredGrid" version="2.1" byte_order="LittleEndian" '
        'header_type="UInt64" compressor="vtkZLibDataCompressor">\n<UnstructuredGrid>\n'
        f'<Piece NumberOfPoints="{count}" NumberOfCells="{sum(numbers)}">\n'
        + "".join(line for tag, arrays in sections for line in section(tag, arrays))
        + "</Piece>\n</UnstructuredGrid>\n</VTKFile>\n",
        encoding="ascii",
    )


def section(tag: str, arrays: Mapping[str, Tensor]) -> Iterable[str]:
    """Arrays "n" or "n c" as XML; those with VTK's own names are marked as what they are."""
    yield f"<{tag}" + "".join(f' {name}="{name}"' for name in RESERVED if name in arrays) + ">\n"
    for name, tensor in arrays.items():
        values = tensor.numpy().astype(np.dtype("<f8" if tensor.is_floating_point() else "<i8"))
        packed = zlib.compress(values.tobytes())
        head = np.array([1, values.nbytes, values.nbytes, len(packed)], dtype="<u8").tobytes()
        kind, width = ("Float64" if tensor.is_floating_point() else "Int64"), values[0].size
        name = escape(name, {'"': "&quot;"}).encode("ascii", "xmlcharrefreplace").decode()
        yield f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{width}" format="binary">'
        yield f"{b64encode(head).decode()}{b64encode(packed).decode()}</DataArray>\n"
    yield f"</{tag}>\n"


def check(
    patches: Sequence[Patch], subdivisions: int | None, fields: Mapping[str, Sequence[Float[Tensor, "..."]]]
) -> list[int]:
    """What can be written, and the numbers of components of the fields."""
    for patch in patches:
        fits = subdivisions is not None or 1 <= min(patch.degree) <= max(patch.degree) <= LARGEST_DEGREE
        if patch.dim > 3 or not fits:
            raise ValueError(
                f".vtu files hold patches of degree 1 to {LARGEST_DEGREE} in at most three dimensions; got degree "
                f"{patch.degree} in {patch.dim}. Write straight cells, `subdivisions=8`, of other degrees."
            )
    widths = []
    for name, values in fields.items():
        if name in RESERVED or len(values) != len(patches):
            raise ValueError(
                f"field {name!r} needs one tensor for each of {len(patches)} patches, and a name other than "
                f"{' and '.join(RESERVED)}; got {len(values)} of them."
            )
        trailing = {tuple(v.shape[p.directions :]) for v, p in zip(values, patches, strict=True)}
        fits = all(tuple(v.shape[: p.directions]) == p.shape for v, p in zip(values, patches, strict=True))
        if not fits or len(trailing) != 1 or len(shape := trailing.pop()) > 1:
            raise ValueError(
                f"field {name!r} needs coefficients '*n' or '*n c' like the control points; got shapes "
                f"{[tuple(v.shape) for v in values]} for control points {[p.shape for p in patches]}."
            )
        widths.append(shape[0] if shape else 1)
    return widths


def bezier_cells(patch: Patch) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"], Int64[Tensor, "e a"]]:
    """Bézier control points (Euclidean), their weights, and the cells in VTK's order of nodes.

    Every inner knot is repeated p times, so that neighbours share nodes, and p + 1 times where it is so already: there
    the patch may jump.
    """
    knots, starts = [], []
    for axis, p in enumerate(patch.degree):
        found = breakpoints(patch, axis)
        times = found.times.clamp(min=p)
        knots.append(found.knots(times))
        starts.append(pad(times[1:-1].cumsum(0), (1, 0)))
    patch = express(patch, knots)
    number, order = torch.arange(prod(patch.shape), device="cpu").reshape(patch.shape), node_order(patch.degree)
    local = torch.stack(torch.unravel_index(order, [p + 1 for p in patch.degree]), -1)
    corners = torch.stack(torch.meshgrid(*starts, indexing="ij"), -1).flatten(0, -2)
    cells = number[tuple((corners[:, None] + local).unbind(-1))]
    return patch.control_points.flatten(0, -2), torch.from_numpy(weights_of(patch)).flatten(), cells


def node_order(degree: Sequence[int]) -> Int64[Tensor, "a"]:
    """Which of a cell's nodes "u v w", w fastest, come first in VTK: corners, edges, faces, interior."""
    number = torch.arange(prod(p + 1 for p in degree), device="cpu").reshape([p + 1 for p in degree])
    number = number.permute(*reversed(range(len(degree)))).flatten()  # u fastest
    index = torch.unravel_index(number, [p + 1 for p in degree])
    zero = torch.zeros_like(number)
    at_end = [(i == p).long() for i, p in zip(index, degree, strict=True)] + [zero] * (3 - len(degree))
    inside = torch.stack([((i > 0) & (i < p)).long() for i, p in zip(index, degree, strict=True)])
    u, v, w = at_end
    around = 2 * v + (u ^ v)  # 0, 1, 2, 3 counterclockwise
    along, across = inside.argmax(0), (1 - inside).argmax(0)
    edge = torch.stack([4 * w + 2 * v, 4 * w + 3 - 2 * u, 8 + around]).gather(0, along[None])[0]
    face = 2 * across + torch.stack(at_end).gather(0, across[None])[0]
    group = torch.stack([4 * w + around, edge, face, zero]).gather(0, inside.sum(0)[None])[0]
    return number[torch.argsort(100 * inside.sum(0) + group, stable=True)]
