"""The piecewise-constant layer: each connected component of what exceeds a threshold becomes its mean.

With the components held, h = A x with the orthogonal projector A onto images that are constant on them; its transpose
is itself, so that backward takes the means of the incoming gradient over the same components, in linear time. Source:
M. Cho et al., Differentiable spline approximations, NeurIPS 2021, section 3.1 and eq. 19.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.autograd import Function

from fem.support.c_function import CFunction, c_text
from fem.support.checks import check_choice, check_flags, check_kind, check_numbers
from fem.support.modes import outside_modes
from fem.support.native import WORTH
from fem.support.transforms import hidden, plainly, transformed
from segmentation.components import NAMED, check_cleaning, clean_mask, components, dual, reach_of, sizes

BACKGROUNDS = ("keep", "components", "single")


@cache
def averages(value: torch.dtype, label: torch.dtype) -> CFunction:
    return CFunction(c_text("segmentation", "averages.c"), Value=value, Label=label)


def average(x: Float[Tensor, "b *grid"], labels: Int[Tensor, "b *grid"], most: int) -> Float[Tensor, "b *grid"]:
    """Means over pixels of equal positive label; label 0 keeps its values, negative labels become 0."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        run = averages(x.dtype, labels.dtype)
        if run.ready(WORTH):
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            pixels = x[0].numel() if len(x) else 0
            if run(len(x), pixels, most, x.contiguous(), labels.contiguous(), out):
                raise MemoryError(f"not enough memory for the means of {most} components.")
            return out
    flat, kinds = x.flatten(1), labels.flatten(1).clamp(min=0).long()
    wide = flat.to(torch.float64) if x.device.type != "mps" else flat
    total = torch.zeros(len(x), most + 1, dtype=wide.dtype, device=x.device).scatter_add_(1, kinds, wide)
    count = sizes(kinds, most).to(wide.dtype).clamp(min=1)
    mean = (total / count).gather(1, kinds).to(x.dtype).view(x.shape)
    return torch.where(labels > 0, mean, torch.where(labels < 0, 0, x))


class Average(Function):
    """`average` with its transpose, itself, as derivative."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "b *grid"], labels: Int[Tensor, "b *grid"], most: int):
        ctx.save_for_backward(labels)
        ctx.most = most
        return average(x, labels, most)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        labels, most = ctx.saved_tensors[0], ctx.most
        if hidden(*grads):
            return plainly(lambda g: (Average.apply(g, labels, most),), grads)[0], None, None  # type: ignore[arg-type]
        return Average.apply(grads[0], labels, most), None, None  # type: ignore[return-value]


@outside_modes
def piecewise_constant(
    x: Shaped[Tensor, "b c *grid"],
    threshold: float = 0.5,
    connectivity: str | int = "full",
    background: str = "keep",
    *,
    min_size: int = 0,
    keep_largest: int | None = None,
    fill_holes: bool | int = False,
    check_finite: bool = True,
) -> Float[Tensor, "b c *grid"]:
    """Replace each connected component of x > threshold by its mean, in each channel of each image:

        h_i = 1/|C| Σ_{j ∈ C} x_j    for i in component C,    ∂h_i/∂x_j = 1/|C| for i, j in the same one, else 0.

    Exact wherever no value lies at the threshold, to any order.

    Args:
        x: images "b c y x" or volumes "b c z y x"; dtype and device follow.
        threshold: what lies above is foreground.
        connectivity: of the foreground, "face", "full" or a number of neighbours (`label_components`).
        background: "keep" leaves its pixels as they are; "components" averages over its components too (of the dual
            connectivity), so that holes are pieces of their own; "single" makes one piece of it. With "single",
            training from scratch stalls: while nothing exceeds the threshold, the network is told but its mean.
        min_size, keep_largest, fill_holes: as in `clean_mask`. Holes that are filled belong to the component around
            them. Components that go become background: 0 where the background is kept, part of its pieces elsewhere.
        check_finite: look for NaN and infinity (on a GPU this waits for it).

    Raises:
        TypeError: integers or truth values, whose means are none.
        ValueError: another number of dimensions, unknown options, NaN.
        TypeError: no tensor of floating-point numbers.
    """
    check_options("piecewise_constant", threshold, background, min_size, keep_largest, fill_holes, check_finite)
    check_kind("piecewise_constant", "x", x, Tensor, "a tensor of images")
    if not x.is_floating_point():
        raise TypeError(f"`piecewise_constant` takes floating-point images; got {x.dtype}. Convert with `x.float()`.")
    if x.ndim not in (4, 5):
        raise ValueError(
            f"`piecewise_constant` takes images (b, c, y, x) or volumes (b, c, z, y, x); got shape {tuple(x.shape)}."
        )
    dim = x.ndim - 2
    reach = reach_of(connectivity, dim)
    if transformed():
        options = threshold, connectivity, background
        extra: Any = {"min_size": min_size, "keep_largest": keep_largest, "fill_holes": fill_holes}
        extra["check_finite"] = check_finite
        return plainly(lambda x: (piecewise_constant(x, *options, **extra),), [x])[0]
    # The sum is quick to tell; where it overflows, look at every number.
    if check_finite and not bool(x.detach().sum().isfinite()) and not bool(x.detach().isfinite().all()):
        b, c, *pixel = (~x.detach().isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"image {b}, channel {c} is {float(x[b, c, *pixel])} at pixel {tuple(pixel)}: the layer takes finite "
            "numbers."
        )
    flat = x.flatten(0, 1)
    over = mask = flat.detach() > threshold
    if min_size > 1 or keep_largest is not None or fill_holes:
        mask = clean_mask(mask, min_size, keep_largest, fill_holes, connectivity)
    labels, counts = components(mask, reach, torch.int32)
    if background == "single":
        labels = torch.where(mask, labels, (counts.max() + 1).to(labels.dtype))
        counts = counts.max() + 1
    elif background == "components":
        other, more = components(~mask, dual(reach, dim), torch.int32)
        labels = torch.where(mask, labels, other + counts.max().to(other.dtype))
        counts = counts.max() + more.max()
    elif mask is not over:
        labels = torch.where(over & ~mask, -1, labels)
    found: Any = Average.apply(flat, labels, int(counts.max()) if counts.numel() else 0)
    return found.view(x.shape)


def check_options(
    call: str,
    threshold: float,
    background: str,
    min_size: int,
    keep_largest: int | None,
    fill_holes: bool | int,
    check_finite: bool,
) -> None:
    """Raise where options of the layer are none, whatever the images.

    Raises:
        ValueError: the option is named.
    """
    check_numbers(call, "finite", threshold=threshold)
    check_choice(call, "background", background, BACKGROUNDS)
    check_cleaning(call, min_size, keep_largest, fill_holes)
    check_flags(call, check_finite=check_finite)


class PiecewiseConstant(nn.Module):
    """`piecewise_constant` as a layer; its arguments are those of the function.

    `layer.enabled = False` lets everything through: networks are best warmed up without it, because until something
    sensible exceeds the threshold its components mean nothing.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        connectivity: str | int = "full",
        background: str = "keep",
        *,
        min_size: int = 0,
        keep_largest: int | None = None,
        fill_holes: bool | int = False,
        check_finite: bool = True,
    ):
        super().__init__()
        check_options("PiecewiseConstant", threshold, background, min_size, keep_largest, fill_holes, check_finite)
        choices = ("face", "full", *(number for _, number in NAMED))
        check_choice("PiecewiseConstant", "connectivity", connectivity, choices)
        self.options: dict[str, Any] = {
            "threshold": threshold,
            "connectivity": connectivity,
            "background": background,
            "min_size": min_size,
            "keep_largest": keep_largest,
            "fill_holes": fill_holes,
            "check_finite": check_finite,
        }
        self.enabled = True

    def forward(self, x: Shaped[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        return piecewise_constant(x, **self.options) if self.enabled else x

    def extra_repr(self) -> str:
        usual = {"min_size": 0, "keep_largest": None, "fill_holes": False, "check_finite": True}
        shown = {k: v for k, v in self.options.items() if k not in usual or usual[k] != v}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())
