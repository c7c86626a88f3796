"""Length, area or volume of patches: ∫ √det(JᵀJ) du by Gauss quadrature, to a tolerance."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fem.support.checks import check_numbers
from fem.support.modes import outside_modes
from fem.support.transforms import plainly, transformed
from nurbs.geometry.cell_quadrature import Cells, adapted, density, gauss_rule
from nurbs.geometry.patch import Patch
from nurbs.geometry.spans import flat_batch

NAMES = {1: "length", 2: "area", 3: "volume"}
RTOL = {torch.float64: 1e-10}  # by dtype; else
LOOSE = 1e-5


@outside_modes
def measure(patch: Patch, num_points: int | None = None, rtol: float | None = None) -> Float[Tensor, "*b"]:
    """Length, area or volume: ∫ √det(JᵀJ) du by Gauss quadrature on each span, differentiably (in the knots too).

    Spans are halved where rules of different order disagree, at cusps and where uneven weights crowd the parameters,
    until the error of the whole is estimated below `rtol`. Where to halve is decided without gradient; that of the
    result is that of the sum. Spans of no length have weight zero, so that items of a batch may repeat different knots.

    Args:
        num_points: Gauss points per span and direction; then no span is halved, and there is no control of the error.
        rtol: relative to the whole, 1e-10 in double precision and 1e-5 in others.

    Warns:
        UserWarning: with the error that is left where `rtol` cannot be reached with two million points for one patch.
    """
    corners = [t[..., p : t.shape[-1] - p] for t, p in zip(patch.unwrapped_knots, patch.degree, strict=True)]
    return cell_measures(patch, corners, num_points, rtol).flatten(-patch.directions).sum(-1)


def cell_measures(
    patch: Patch, corners: Sequence[Float[Tensor, "..."]], num_points: int | None, rtol: float | None
) -> Float[Tensor, "..."]:
    """∫ √det(JᵀJ) over the cells between corners "*#b k" per direction, which hold all knots: "*b *k-1".

    Arguments as for `measure`; the tolerance is relative to the sum over all cells.
    """
    check_numbers("measure", "a fraction", optional=True, rtol=rtol)
    if num_points is not None and rtol is not None:
        raise ValueError(
            f"`measure` takes `num_points` (a fixed rule) or `rtol` (as many as it takes); got num_points={num_points} "
            f"and rtol={rtol}."
        )
    values = _fixed(patch, corners, num_points)
    if num_points is not None:
        return values
    if transformed():
        given = [patch.control_points, *corners, *patch.knots, *([] if patch.weights is None else [patch.weights])]
        return plainly(_Plain(patch, rtol), given)[0]
    return _corrected(patch, corners, values, RTOL.get(patch.dtype, LOOSE) if rtol is None else rtol)


def _fixed(patch: Patch, corners: Sequence[Tensor], num_points: int | None) -> Float[Tensor, "..."]:
    x, w = gauss_rule(patch, num_points)
    J = patch.jacobian(*(torch.lerp(c[..., :-1, None], c[..., 1:, None], x).flatten(-2) for c in corners))
    values = density(J)
    for axis, c in reversed(list(enumerate(corners))):
        where = axis - patch.directions
        values = values.unflatten(where, (c.shape[-1] - 1, len(x))).movedim(where, -1) @ w
        values = values * c.diff().reshape(*c.shape[:-1], *[1] * axis, -1, *[1] * (-1 - where))
    return values


class _Plain:
    """`cell_measures` as a function of plain tensors, for transformations of PyTorch."""

    def __init__(self, patch: Patch, rtol: float | None):
        self.patch, self.rtol = patch, rtol

    def __call__(self, points: Tensor, *rest: Tensor) -> list[Tensor]:
        r = self.patch.directions
        weights = rest[2 * r] if self.patch.weights is not None else None
        patch = self.patch.replace(control_points=points, weights=weights, knots=rest[r : 2 * r])
        return [cell_measures(patch, rest[:r], None, self.rtol)]


def _corrected(patch: Patch, corners: Sequence[Tensor], values: Tensor, rtol: float) -> Tensor:
    """The values by fixed rules, with those cells anew that have to be cut."""
    r = patch.directions
    batch = values.shape[:-r]
    flat = [c.expand(*batch, -1).reshape(-1, c.shape[-1]) for c in corners]
    values = values.reshape(-1, *values.shape[-r:])
    patch = flat_batch(patch.unwrapped(), batch).replace(check_finite=False)
    precise = patch.dtype if patch.device.type == "mps" else torch.float64
    double, ends = patch.detach().to(precise), [c.detach().to(precise) for c in flat]
    middle = double.control_points.flatten(1, r).mean(1).reshape(-1, *[1] * r, patch.dim)
    wide = torch.ones_like(values, dtype=torch.bool)
    for axis, c in enumerate(ends):
        wide &= (c.diff() > 0).reshape(len(c), *[1] * axis, -1, *[1] * (r - 1 - axis))
    index = wide.nonzero()
    cells = Cells.of(double.replace(control_points=double.control_points - middle), ends, index)
    leaves, refined, left = adapted(cells, len(values), rtol)
    if (bad := left > 0).any():
        item = int(bad.nonzero()[0])
        which = f" of item {item} of the batch" if len(values) > 1 else ""
        warnings.warn(
            f"`measure`: the {NAMES[r]}{which} has an estimated relative error of {left[item].item():.1e}, not "
            f"rtol={rtol:g}: the patch is folded along lines that cross its spans, or its weights or knots are too "
            "uneven for this precision. Give a larger `rtol`, or insert knots along the folds.",
            stacklevel=5,
        )
    if not refined.any():
        return values.reshape(*batch, *values.shape[1:])
    leaves, index = leaves[refined[leaves.cell].nonzero()[:, 0]], index[refined.nonzero()[:, 0]]
    leaves = leaves.of_cells((refined.cumsum(0) - 1)[leaves.cell], patch.dtype)
    cells = Cells.of(patch, flat, index)
    new = cells.integrals(cells.spans(), leaves, [gauss_rule(patch, None)] * r)
    sums = new.new_zeros(len(index)).index_add(0, leaves.cell, new)
    return values.index_put(tuple(index.unbind(-1)), sums).reshape(*batch, *values.shape[1:])
