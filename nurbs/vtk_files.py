"""Patches as VTK files for ParaView and its kin: exactly, as rational Bézier cells, or as straight cells on request.

Every non-empty knot span is one Bézier cell (VTK 9 and later), neighbours share their nodes. Where a patch is rational
the point data "RationalWeights" carry the weights, which makes circles and spheres round at any zoom.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.bspline import basis_functions
from fem.vtk import BEZIER, as_array, padded, write_vtu
from nurbs.patch import Patch
from nurbs.tessellation import tessellate

LINEAR = ("line", "quad", "hexahedron")
LARGEST_DEGREE = 10  # vtkHigherOrderInterpolation::MaxDegree


def write(
    path: Path,
    patches: Sequence[Patch],
    subdivisions: int | None = None,
    fields: Mapping[str, Sequence[Tensor]] | None = None,
) -> None:
    """Write patches to a `.vtu` file: Bézier cells, or straight cells of `tessellate` where `subdivisions` is given.

    Args:
        fields: name → for every patch the coefficients "*n" or "*n c" of Σ w_i f_i N_i / Σ w_i N_i, the functions of
            the patch itself; written as point data, as exactly as the geometry.
    """
    fields = dict(fields or {})
    widths = check(patches, fields)
    points, data, weights, blocks, cell_data = [], [], [], [], {"patch": [], "HigherOrderDegrees": []}
    count = 0
    for i, patch in enumerate(patches):
        extra = [values[i].to(patch.control_points).reshape(*patch.shape, -1) for values in fields.values()]
        dim, patch = patch.dim, patch.replace(control_points=torch.cat([patch.control_points, *extra], -1))
        if subdivisions is None:
            nodes, w, cells = bezier_nodes(patch)
            weights.append(w)
        else:
            mesh = tessellate(patch, subdivisions)
            nodes, cells = mesh.points, mesh.cells
        points.append(torch.nn.functional.pad(nodes[:, :dim], (0, 3 - dim)))
        data.append(nodes[:, dim:])
        kind = (LINEAR if subdivisions else BEZIER)[patch.directions - 1]
        blocks.append((kind, (cells + count).numpy()))
        cell_data["patch"].append(np.full(len(cells), i))
        degrees = [*patch.degree, 0, 0][:3]
        cell_data["HigherOrderDegrees"].append(np.tile(np.array(degrees, dtype=np.float64), (len(cells), 1)))
        count += len(nodes)
    names = zip(fields, torch.cat(data).split(widths, -1), strict=True)
    point_data = {name: as_array(padded(part.squeeze(-1))) for name, part in names}
    attributes = {}
    if subdivisions is None:
        attributes["HigherOrderDegrees"] = "HigherOrderDegrees"
        if any(patch.weights is not None for patch in patches):
            point_data["RationalWeights"] = as_array(torch.cat(weights))
            attributes["RationalWeights"] = "RationalWeights"
    else:
        del cell_data["HigherOrderDegrees"]
    write_vtu(path, as_array(torch.cat(points)), blocks, point_data, cell_data, attributes)


def check(patches: Sequence[Patch], fields: Mapping[str, Sequence[Tensor]]) -> list[int]:
    """What can be written, and the numbers of components of the fields."""
    for patch in patches:
        if patch.dim > 3 or not 1 <= min(patch.degree) <= max(patch.degree) <= LARGEST_DEGREE:
            raise ValueError(
                f".vtu files hold patches of degree 1 to {LARGEST_DEGREE} in at most three dimensions; got degree "
                f"{patch.degree} in {patch.dim}. Write straight cells, `subdivisions=8`, of other degrees."
            )
    widths = []
    for name, values in fields.items():
        if name in ("RationalWeights", "HigherOrderDegrees") or len(values) != len(patches):
            raise ValueError(f"field {name!r} needs one tensor for each of {len(patches)} patches, and a free name.")
        shapes = {tuple(v.shape[p.directions :]) for v, p in zip(values, patches, strict=True)}
        fits = all(tuple(v.shape[: p.directions]) == p.shape for v, p in zip(values, patches, strict=True))
        if not fits or len(shapes) != 1 or len(shape := shapes.pop()) > 1:
            raise ValueError(
                f"field {name!r} needs coefficients '*n' or '*n c' like the control points; got shapes "
                f"{[tuple(v.shape) for v in values]} for control points {[p.shape for p in patches]}."
            )
        widths.append(shape[0] if shape else 1)
    return widths


def bezier_nodes(patch: Patch) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"], Int64[Tensor, "e a"]]:
    """Bézier control points (Euclidean), their weights, and the cells in VTK's order of nodes."""
    patch = patch.unwrapped()
    net = patch.homogeneous
    if patch.weights is None:
        net = torch.cat([net, torch.ones_like(net[..., :1])], -1)
    starts = []
    for axis, (t, p) in enumerate(zip(patch.knots, patch.degree, strict=True)):
        matrix, start = extraction(t, p)
        net = torch.tensordot(matrix, net.movedim(axis, 0), 1).movedim(0, axis)
        starts.append(start)
    number = torch.arange(net[..., 0].numel()).reshape(net.shape[:-1])
    local = node_order(patch.degree)  # "a r"
    corners = torch.stack(torch.meshgrid(*starts, indexing="ij"), -1).flatten(0, -2)  # "e r"
    cells = number[tuple((corners[:, None] + local).unbind(-1))]
    net = net.flatten(0, -2)
    return net[:, :-1] / net[:, -1:], net[:, -1], cells


def extraction(knots: Float[Tensor, "m"], degree: int) -> tuple[Float[Tensor, "k n"], Int64[Tensor, "e"]]:
    """The Bézier control points of all spans from the B-spline's, and the number of each span's first one.

    On a span the Bernstein coefficients c of a function solve B(x) c = N(x) at p + 1 points x of the span, Chebyshev's,
    to round-off for the degrees that VTK knows. Neighbours share a point, unless the function may jump there.
    """
    p = degree
    span = torch.arange(p, len(knots) - p - 1)
    span = span[knots[span + 1] > knots[span]]
    low, high = knots[span, None], knots[span + 1, None]
    x = (0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(p + 1) + 0.5) / (p + 1))).to(knots)
    functions = basis_functions(knots, p, torch.lerp(low, high, x).flatten(), span=span.repeat_interleave(p + 1))[0]
    bernstein_knots = torch.tensor([0.0, 1.0]).repeat_interleave(p + 1).to(knots)
    bernstein = basis_functions(bernstein_knots, p, x)[0]
    local = torch.linalg.solve(bernstein, functions.unflatten(0, (len(span), p + 1)))  # "e a c"
    jump = span.diff() > p  # the knot between is repeated p + 1 times
    start = torch.cat([torch.zeros_like(span[:1]), (p + jump.long()).cumsum(0)])
    matrix = knots.new_zeros(int(start[-1]) + p + 1, len(knots) - p - 1)
    rows = start[:, None] + torch.arange(p + 1)
    columns = span[:, None] - p + torch.arange(p + 1)
    matrix[rows[:, :, None], columns[:, None, :]] = local
    return matrix, start


def node_order(degree: Sequence[int]) -> Int64[Tensor, "a r"]:
    """Where in the grid of a cell each of its nodes lies: corners, edges, faces, interior, as VTK numbers them."""
    r = len(degree)
    grid = torch.cartesian_prod(*(torch.arange(p + 1) for p in reversed(degree))).reshape(-1, r).flip(-1)  # u fastest
    inside = (grid > 0) & (grid < torch.tensor(degree))
    at_end = grid == torch.tensor(degree)
    kind = inside.sum(-1)  # 0 corner, 1 edge, 2 face, 3 interior
    u_end, v_end, w_end = (at_end[:, axis].long() if axis < r else torch.zeros(len(grid)).long() for axis in range(3))
    around = 2 * v_end + (u_end ^ v_end)  # 0, 1, 2, 3 counterclockwise
    corner = 4 * w_end + around
    along = inside.long().argmax(-1)
    edge = torch.where(along == 0, 4 * w_end + 2 * v_end, 4 * w_end + 3 - 2 * u_end)
    edge = torch.where(along == 2, 8 + around, edge)
    across = (~inside).long().argmax(-1)
    face = 2 * across + torch.gather(at_end.long(), 1, across[:, None])[:, 0]
    group = torch.stack([corner, edge, face, torch.zeros_like(face)], -1).gather(1, kind[:, None])[:, 0]
    order = torch.argsort(kind * 100 + group, stable=True)
    return grid[order]
