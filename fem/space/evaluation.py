"""Values of functions at arbitrary points of their mesh, differentiable in dofs, points and nodes."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.location import attach, locate
from fem.mesh.mesh import Mesh
from fem.reference.element import Element
from fem.support.checks import shown
from fem.support.transforms import carries


def evaluate_fields(
    fields: Sequence[Any], dofs: Sequence[Tensor], points: Float[Tensor, "m d"], outside: float | None = None
) -> tuple[Tensor, ...]:
    """u(x) = Σ_a u_a φ_a(ξ(x)) for each of some function spaces over one mesh, given its dofs: "*b m" or "*b m c".

    Differentiable in the dofs, the points and `mesh.nodes`. Where elements meet, the lowest-numbered cell speaks.
    Derivatives are those within the cell, up to second order.

    Raises:
        TypeError: points that are no tensor of the mesh's dtype on its device.
        ValueError: points of another shape or not finite; a point outside the mesh, unless `outside` gives a value.
    """
    if outside is not None and (isinstance(outside, bool) or not isinstance(outside, Real)):
        raise TypeError(f"`evaluate(outside=...)` must be None or a number, such as `math.nan`; got {shown(outside)}.")
    mesh: Mesh = fields[0].mesh
    cell, reference = locate(mesh, points)
    lost = cell < 0
    if outside is None and bool(lost.any()):
        first = int(torch.nonzero(lost)[0])
        raise ValueError(
            f"`points[{first}]` = {points[first].tolist()} lies outside the mesh (in all {int(lost.sum())} of "
            f"{len(points)} points do); leave it out, or pass `outside=math.nan` or a number to fill such points."
        )
    columns = [u[..., None] if V.components is None else u for V, u in zip(fields, dofs, strict=True)]
    values = [u.new_full((*u.shape[:-2], len(points), u.shape[-1]), outside or 0.0) for u in columns]
    for i, start in enumerate(mesh.block_starts[:-1]):
        rows = torch.nonzero((cell >= start) & (cell < mesh.block_starts[i + 1])).flatten()
        cells, at = cell[rows] - start, reference[rows]
        if torch.is_grad_enabled() and (carries(points) or mesh.version is None):
            at = attach(mesh, i, cells, at, points[rows])
        for k, (V, u) in enumerate(zip(fields, columns, strict=True)):
            table, index = tabulate_at(V.elements[i], cells, at), V.cell_dofs.of(i, cells)
            local = u.index_select(-2, index.flatten()).unflatten(-2, index.shape)
            values[k] = values[k].index_copy(-2, rows, torch.einsum("ma,...mac->...mc", table, local))
    return tuple(v[..., 0] if V.components is None else v for V, v in zip(fields, values, strict=True))


def tabulate_at(element: Element, cells: Int[Tensor, "m"], reference: Float[Tensor, "m r"]) -> Float[Tensor, "m a"]:
    """The local basis functions of the m-th cell at the m-th reference point."""
    own: Callable[[Tensor, Tensor], Tensor] | None = getattr(element, "tabulate_at", None)
    if own is not None:
        return own(cells, reference)
    table = element.tabulate(reference, 0).value
    if len(table) > 1:
        raise ValueError(f"{element} differs from cell to cell and needs `tabulate_at(cells, points)` to be evaluated.")
    return table[0]
