"""What of a patch acts on single spans: p + 1 control points and 2p + 2 knots per direction."""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nurbs.geometry.patch import AnyPatch, Patch


def nonempty_spans(patch: Patch) -> tuple[Int64[Tensor, "c"], list[Int64[Tensor, "c"]]]:
    """The spans (boxes of the knot grid) that are not empty, of a patch with one batch axis: their items, and per
    direction the index i of the knot t_i with which they start."""
    r = patch.directions
    full = torch.ones((), dtype=torch.bool, device=patch.device)
    for axis, (t, p) in enumerate(zip(patch.knots, patch.degree, strict=True)):
        wide = t[:, p : t.shape[-1] - p].diff() > 0
        full = full & wide.reshape(len(wide), *[1] * axis, -1, *[1] * (r - 1 - axis))
    item, *spans = full.expand(*patch.batch, *full.shape[1:]).nonzero().unbind(-1)
    return item, [i + p for i, p in zip(spans, patch.degree, strict=True)]


def on_spans(patch: AnyPatch, items: Int64[Tensor, "c"], spans: Sequence[Int64[Tensor, "c"]]) -> AnyPatch:
    """The same map on these spans alone, as a batch "c" of patches of one span; differentiable.

    Args:
        patch: with one batch axis that all its tensors have, without periodic directions.
        items, spans: as `nonempty_spans` gives them.
    """
    index, knots = items.new_zeros(1, 1), []
    for axis, (i, t, p) in enumerate(zip(spans, patch.knots, patch.degree, strict=True)):
        local = (i - p)[:, None] + torch.arange(p + 1, device=i.device)
        index = (index[..., None] + local[:, None] * prod(patch.shape[axis + 1 :])).flatten(1)
        knots.append(t[items[:, None], i[:, None] + torch.arange(-p, p + 2, device=i.device)])
    sizes = [p + 1 for p in patch.degree]

    def gathered(values: Tensor) -> Tensor:
        return values[items[:, None], index].unflatten(1, sizes)

    r, w = patch.directions, patch.weights
    return patch.replace(
        control_points=gathered(patch.control_points.flatten(1, r)),
        weights=None if w is None else gathered(w.flatten(1)),
        knots=tuple(knots),
        knot_gradient="exact",
        sigma=None,
        check_finite=False,
    )


def flat_batch(patch: AnyPatch, batch: tuple[int, ...]) -> AnyPatch:
    """The patch, which must not be periodic, with exactly one batch axis, that all its tensors have."""
    r = patch.directions

    def flat(tensor: Tensor, own: int) -> Float[Tensor, "b ..."]:
        return tensor.expand(*batch, *tensor.shape[tensor.ndim - own :]).reshape(-1, *tensor.shape[tensor.ndim - own :])

    return patch.replace(
        control_points=flat(patch.control_points, r + 1),
        weights=None if patch.weights is None else flat(patch.weights, r),
        knots=tuple(flat(t, 1) for t in patch.knots),
    )
