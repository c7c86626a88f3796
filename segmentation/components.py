"""Connected components of masks and label images, batched, in two and three dimensions.

Neighbours differ by at most one along each axis, and along at most `reach` axes at once: 4 or 8 neighbours in two
dimensions, 6, 18 or 26 in three. Components are numbered in scan order, by their first pixel. On CPUs with a C compiler
runs of pixels are joined (`labelling.c`), images in parallel. Elsewhere, and on GPUs, pixels hang the root of their
neighbour's component under their own if that has the smaller number, and jump along pointers to it, until nothing
changes: exact for spirals and snakes, in far fewer rounds than a component is long.
"""

from functools import cache
from itertools import product

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from fem.support.c_function import CFunction, c_text
from fem.support.checks import check_kind, is_integer, shown
from fem.support.native import WORTH

NAMED = {(2, 4): 1, (2, 8): 2, (3, 6): 1, (3, 18): 2, (3, 26): 3}


def reach_of(connectivity: str | int, dim: int) -> int:
    """Along how many axes at once neighbours may differ.

    Raises:
        ValueError: there is no such connectivity.
    """
    reach = None
    if isinstance(connectivity, str):
        reach = {"face": 1, "full": dim}.get(connectivity)
    elif is_integer(connectivity):
        reach = NAMED.get((dim, int(connectivity)))
    if reach is None:
        numbers = ", ".join(str(c) for d, c in NAMED if d == dim)
        raise ValueError(
            f'`connectivity` must be "face", "full" or one of {numbers} for images of {dim} dimensions; got '
            f"{shown(connectivity)}."
        )
    return reach


def check_cleaning(call: str, min_size: int, keep_largest: int | None, fill_holes: bool | int) -> None:
    """Raise where the sizes of `clean_mask` are none.

    Raises:
        ValueError: negative ones, or what is no integer.
    """
    fits = is_integer(min_size, 0) and (isinstance(fill_holes, bool) or is_integer(fill_holes, 0))
    if not fits or not (keep_largest is None or is_integer(keep_largest, 1)):
        raise ValueError(
            f"`{call}` takes min_size >= 0, fill_holes >= 0 (or True) and keep_largest >= 1 (or None); got "
            f"{shown(min_size)}, {shown(fill_holes)} and {shown(keep_largest)}."
        )


def dual(reach: int, dim: int) -> int:
    """The connectivity of the background: where objects touch at corners, what lies between them does not."""
    return dim if reach == 1 else 1


def label_components(mask: Shaped[Tensor, "b *grid"], connectivity: str | int = "full") -> Int[Tensor, "b *grid"]:
    """Number the connected components of each image of a batch.

    Args:
        mask: images "b y x" or volumes "b z y x", of bool (pixels that are True are joined) or of integers (neighbours
            are joined where they are equal, and 0 is background).
        connectivity: "face" (4 or 6 neighbours), "full" (8 or 26), or their number, 18 included.

    Returns:
        int64, 0 in the background, components from 1 on in scan order, anew for each image.

    Raises:
        ValueError: another number of dimensions, or an unknown connectivity.
        TypeError: the mask is floating-point.
    """
    check_kind("label_components", "mask", mask, Tensor, "a tensor of bool or integers")
    if mask.ndim not in (3, 4):
        raise ValueError(
            "`label_components` takes a batch of images (b, y, x) or volumes (b, z, y, x); got shape "
            f"{tuple(mask.shape)}. A single image needs `image[None]`."
        )
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(
            f"`label_components` takes a mask of bool or integer labels; got {mask.dtype}. `image > 0.5` makes a mask."
        )
    return components(mask, reach_of(connectivity, mask.ndim - 1))[0]


def components(
    mask: Shaped[Tensor, "b *grid"], reach: int, dtype: torch.dtype = torch.int64
) -> tuple[Int[Tensor, "b *grid"], Int[Tensor, "b"]]:
    """Labels, and how many there are in each image. Labels of 32 bits take half the memory, and time to read."""
    if mask.numel() == 0:
        return mask.to(dtype), mask.new_zeros(len(mask), dtype=torch.int64)
    if mask.device.type == "cpu":
        found = compiled(mask, reach, dtype)
        if found is not None:
            return found
    labels, counts = by_pointers(mask, reach)
    return labels.to(dtype), counts


@cache
def labelling(pixel: torch.dtype, label: torch.dtype) -> CFunction:
    return CFunction(c_text("segmentation", "labelling.c"), Pixel=pixel, Label=label)


def compiled(mask: Shaped[Tensor, "b *grid"], reach: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """By compiled code, if there is a compiler."""
    pixel = mask.dtype if mask.dtype in (torch.bool, torch.uint8) else torch.int64
    run = labelling(pixel, dtype)
    if not run.ready(WORTH):
        return None
    pixels = mask.to(pixel).contiguous()
    b, *grid = mask.shape
    labels, counts = torch.empty(mask.shape, dtype=dtype, device="cpu"), torch.empty(b, dtype=torch.int64, device="cpu")
    if run(b, *(1,) * (3 - len(grid)), *grid, reach, pixels, labels, counts):
        raise MemoryError(f"not enough memory to label images of shape {tuple(grid)}.")
    return labels, counts


def by_pointers(mask: Shaped[Tensor, "b *grid"], reach: int) -> tuple[Int[Tensor, "b *grid"], Int[Tensor, "b"]]:
    """In PyTorch, on any device: every pixel points to one that comes before it in its component, or to itself."""
    b, *grid = mask.shape
    count = mask.numel()
    number = torch.arange(count, device=mask.device).view(mask.shape)
    pairs = []
    for offset in product((-1, 0, 1), repeat=len(grid)):
        if not 0 < sum(o != 0 for o in offset) <= reach or offset > tuple(-o for o in offset):
            continue
        here = tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, grid, strict=True))
        there = tuple(slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, grid, strict=True))
        one, two = mask[:, *here], mask[:, *there]
        touching = (one == two) & (one != 0)
        pairs.append(torch.stack([number[:, *here][touching], number[:, *there][touching]]))
    one, two = torch.cat(pairs, 1)
    parent = number.flatten()
    while len(one):
        roots = parent[one], parent[two]
        low, high = torch.minimum(*roots), torch.maximum(*roots)
        parent = parent.scatter_reduce(0, high, low, "amin")
        while True:
            jumped = parent[parent]
            if torch.equal(jumped, parent):
                break
            parent = jumped
        apart = parent[one] != parent[two]
        one, two = one[apart], two[apart]
    first = (parent == number.flatten()).view(b, -1) & (mask != 0).flatten(1)
    order = first.cumsum(1)
    labels = torch.where((mask != 0).flatten(1), order.flatten()[parent].view(b, -1), 0)
    return labels.view(mask.shape), order[:, -1]


def sizes(labels: Int[Tensor, "b *grid"], most: int) -> Int[Tensor, "b k"]:
    """Pixels of labels 0, 1, …, most in each image."""
    b = len(labels)
    offsets = torch.arange(b, device=labels.device)[:, None] * (most + 1)  # int64, and the sum with it
    return torch.bincount((labels.flatten(1) + offsets).flatten(), minlength=b * (most + 1)).view(b, most + 1)


def clean_mask(
    mask: Shaped[Tensor, "b *grid"],
    min_size: int = 0,
    keep_largest: int | None = None,
    fill_holes: bool | int = False,
    connectivity: str | int = "full",
) -> Bool[Tensor, "b *grid"]:
    """Masks without holes and small components.

    Args:
        mask: "b y x" or "b z y x".
        min_size: components of fewer pixels go.
        keep_largest: so many stay, the first in scan order among equals.
        fill_holes: background that no path of pixels joins with the edge of the image becomes foreground, before
            anything else; a number stands for holes of at most so many pixels. Paths are those of the dual
            connectivity: where objects are joined at corners, holes are not.
        connectivity: of the objects, as in `label_components`.

    Raises:
        ValueError: negative sizes, or what `label_components` raises.
        TypeError: the mask is not of bool.
    """
    check_kind("clean_mask", "mask", mask, Tensor, "a tensor of bool")
    if mask.dtype != torch.bool:
        raise TypeError(f"`clean_mask` takes a mask of bool; got {mask.dtype}. `image > 0.5` makes a mask.")
    if mask.ndim not in (3, 4):
        raise ValueError(f"`clean_mask` takes masks (b, y, x) or (b, z, y, x); got shape {tuple(mask.shape)}.")
    check_cleaning("clean_mask", min_size, keep_largest, fill_holes)
    dim = mask.ndim - 1
    reach = reach_of(connectivity, dim)
    if fill_holes:
        outside, counts = components(~mask, dual(reach, dim))
        free = torch.zeros(len(mask), int(counts.max()) + 1, dtype=torch.bool, device=mask.device)
        for axis in range(1, dim + 1):
            for end in (0, -1):
                free.scatter_(1, outside.select(axis, end).flatten(1), True)
        if fill_holes is not True:
            free |= sizes(outside, free.shape[1] - 1) > fill_holes
        mask = mask | ~(free.gather(1, outside.flatten(1)).view(mask.shape) | mask)
    if min_size > 1 or keep_largest is not None:
        labels, counts = components(mask, reach)
        size = sizes(labels, int(counts.max()))
        stays = size >= min_size
        stays[:, 0] = False
        if keep_largest is not None:
            ranked = torch.where(stays, size, 0)
            order = ranked[:, 1:].sort(dim=1, descending=True, stable=True).indices[:, :keep_largest] + 1
            stays &= torch.zeros_like(stays).scatter_(1, order, True)
        mask = stays.gather(1, labels.flatten(1)).view(mask.shape)
    return mask
