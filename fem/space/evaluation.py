"""Values and gradients of functions at arbitrary points of their mesh, differentiable in dofs, points and nodes."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.jacobian import adjugate, determinant
from fem.mesh.mesh import Mesh
from fem.mesh.search.inverse_map import invert, push
from fem.mesh.search.location import attach, locate
from fem.mesh.search.nearest import nearest
from fem.reference.element import Element, Tabulation
from fem.space.quadrature_points import stacked_slots
from fem.support.checks import check_choice, shown
from fem.support.transforms import carries


def evaluate_fields(
    fields: Sequence[Any],
    dofs: Sequence[Tensor],
    points: Float[Tensor, "m d"],
    outside: float | str | None = None,
    derivatives: int = 0,
) -> tuple[tuple[Tensor, ...], ...]:
    """u(x) = Σ_a u_a φ_a(ξ(x)), and ∇u = Σ_a u_a J⁻ᵀ ∂φ_a/∂ξ for `derivatives=1`, of some spaces over one mesh.

    Values "*b m" or "*b m c" of all fields, then their gradients "*b m d" or "*b m c d". Differentiable in the dofs,
    the points and `mesh.nodes`. Where elements meet, the lowest-numbered cell speaks. Derivatives are those within the
    cell, up to second order.

    Raises:
        TypeError: points that are no tensor of the mesh's dtype on its device.
        ValueError: points of another shape or not finite; a point outside the mesh, unless `outside` says what then.
    """
    check_choice("evaluate", "derivatives", derivatives, (0, 1))
    filling = filling_of(outside)
    return fields_at(fields, dofs, *place(fields[0].mesh, points, outside), filling, derivatives)


def fields_at(
    fields: Sequence[Any],
    dofs: Sequence[Tensor],
    cell: Int[Tensor, "m"],
    reference: Float[Tensor, "m r"],
    filling: float = 0.0,
    derivatives: int = 0,
) -> tuple[tuple[Tensor, ...], ...]:
    """The same where the cell and the reference coordinates of each point are known; `filling` where there is none."""
    mesh: Mesh = fields[0].mesh
    columns = [u[..., None] if V.components is None else u for V, u in zip(fields, dofs, strict=True)]
    found: list[list[Tensor]] = []
    for order in range(derivatives + 1):
        trailing = [(mesh.num_coordinates,) * V.quadrature.mapping.rank(order) for V in fields]
        shapes = [(*u.shape[:-2], len(cell), u.shape[-1], *t) for u, t in zip(columns, trailing, strict=True)]
        value = 0.0 * filling if order else filling  # derivatives are those of a constant
        found.append([u.new_full(s, value) for u, s in zip(columns, shapes, strict=True)])
    for i, start in enumerate(mesh.block_starts[:-1]):
        rows = torch.nonzero((cell >= start) & (cell < mesh.block_starts[i + 1])).flatten()
        cells, at = cell[rows] - start, reference[rows]
        block = mesh.blocks[i]
        placed = derivatives > 0 or any(V.moments is not None for V in fields)
        inverse = invert(push(block.element, mesh.nodes[block.nodes_of(cells)], at)[1])[:, None] if placed else None
        for k, (V, u) in enumerate(zip(fields, columns, strict=True)):
            table = stacked_slots(tabulate_at(V.elements[i], cells, at, derivatives), derivatives)[0]
            local = torch.einsum("msa,...mac->...mcs", table, local_dofs(V, u, i, cells))[..., None, :]
            for order, slot in enumerate(V.quadrature.mapping.push(local, inverse, derivatives)):
                dim = u.ndim - 2
                found[order][k] = found[order][k].index_copy(dim, rows, slot.squeeze(dim + 2))
    axes = [u.ndim - 1 if V.components is None else None for V, u in zip(fields, columns, strict=True)]
    return tuple(
        tuple(v if axis is None else v.squeeze(axis) for axis, v in zip(axes, values, strict=True)) for values in found
    )


def local_dofs(V: Any, u: Float[Tensor, "*b n c"], block: int, cells: Int[Tensor, "m"] | None) -> Tensor:
    """Coefficients "*b m a c" of the functions tabulated on some cells of a block, or all."""
    index = V.cell_dofs.of(block, cells)
    local = u.index_select(-2, index.flatten()).unflatten(-2, index.shape)
    if V.moments is None:
        return local
    T = V.moments.orientations[block]
    return (T if cells is None or len(T) == 1 else T[cells]) @ local


def values_in_cells(
    V: Any, u: Tensor, block: int, cells: Int[Tensor, "m"] | None, points: Float[Tensor, "q r"]
) -> Tensor:
    """Values "*b m q (c)" of a function at the same reference points of some cells of a block, or all."""
    columns, points = u[..., None] if V.components is None else u, points.to(u)
    table = stacked_slots(V.elements[block].tabulate(points, 0), 0)
    table = table if cells is None or len(table) == 1 else table[cells]
    local = local_dofs(V, columns, block, cells).mT  # "*b m c a"
    reference = (local @ table.flatten(1, 2).mT).unflatten(-1, table.shape[1:3])
    inverse = None
    if V.moments is not None:
        jacobian = V.mesh.map(block, cells, points)[1]
        inverse = adjugate(jacobian) / determinant(jacobian)[..., None, None]
    (found,) = V.quadrature.mapping.push(reference, inverse, 0)
    return found[..., 0, :, :] if V.moments is not None else found[..., 0, :] if V.components is None else found.mT


def place(
    mesh: Mesh, points: Float[Tensor, "m d"], outside: float | str | None
) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"]]:
    """The cell of each point over all blocks, and its reference coordinates as a function of points and nodes.

    Outside the mesh those of the nearest point where that is asked for; else −1 and NaN, if `outside` gives a value.
    """
    cell, reference = locate(mesh, points)
    lost = cell < 0
    if outside is None and bool(lost.any()):
        first = int(torch.nonzero(lost)[0])
        raise ValueError(
            f"`points[{first}]` = {points[first].tolist()} lies outside the mesh (in all {int(lost.sum())} of "
            f"{len(points)} points do); leave it out, pass `outside=math.nan` or a number to fill such points, or "
            'take the nearest points of the mesh by `outside="nearest"`.'
        )
    if torch.is_grad_enabled() and (carries(points) or mesh.version is None):
        for i, start in enumerate(mesh.block_starts[:-1]):
            rows = torch.nonzero((cell >= start) & (cell < mesh.block_starts[i + 1])).flatten()
            if len(rows):
                at = attach(mesh, i, cell[rows] - start, reference[rows], points[rows])
                reference = reference.index_copy(0, rows, at)
    if outside == "nearest" and bool(lost.any()):
        rows = torch.nonzero(lost).flatten()
        there, at = nearest(mesh, points[rows])
        cell, reference = cell.index_copy(0, rows, there), reference.index_copy(0, rows, at)
    return cell, reference


def filling_of(outside: Any) -> float:
    """The value at points outside, if that is a number, else 0; raise where it is neither None nor "nearest"."""
    if outside is None or outside == "nearest":
        return 0.0
    if isinstance(outside, bool) or not isinstance(outside, Real):
        raise TypeError(
            f"`evaluate(outside=...)` must be None or a number, such as `math.nan`; got {shown(outside)}. "
            '"nearest" takes what is found at the nearest point of the mesh.'
        )
    return float(outside)


def tabulate_at(
    element: Element, cells: Int[Tensor, "m"], reference: Float[Tensor, "m r"], derivatives: int = 0
) -> Any:
    """The local basis functions of the m-th cell at the m-th reference point, "1 m a", and their derivatives."""
    own: Callable[[Tensor, Tensor, int], Tabulation] | None = getattr(element, "tabulate_at", None)
    if own is not None:
        return own(cells, reference, derivatives)
    table = element.tabulate(reference, derivatives)
    if len(table.value) > 1:
        raise ValueError(f"{element} differs from cell to cell and needs `tabulate_at(cells, points)` to be evaluated.")
    return table
