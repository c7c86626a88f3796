"""Connected components of a batch of images, and the layer on top of them, beside cc3d and SciPy in the same run.

Images are blobs (smoothed noise), noise of density one half, and spirals, as bool, 8 neighbours. cc3d and SciPy go
through the batch in a loop; they return 16- or 32-bit labels, ours are the int64 that PyTorch indexes with. Then comes
`piecewise_constant`, forward and backward, in single precision. Last, what the layer holds at most, for a batch and for
one four times as large, in processes of their own. Claims: labels agree up to their names; the layer costs a small
multiple of the labelling, and its memory grows like the images.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.benchmarks.timing import alone, interleaved, peak_memory, peer, seconds, table, use_threads
from examples.command_line import run, write
from segmentation import piecewise_constant
from segmentation.components import components

HEAD = ("images", "by", "median", "over ritz", "components")


def main(
    items: int = 16,
    size: int = 512,
    repeats: int = 7,
    memory: int = 1,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Label in turns, and compare.

    Args:
        items: images in the batch
        size: pixels per side
        repeats: runs of each kind
        memory: 1 to measure memory too, 0 to leave it out
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        seconds and numbers of components, such as "blobs ritz", "blobs cc3d" and "blobs ritz components", with "layer"
        for forward and backward; "bytes" per pixel for the batch and "bytes large" for one four times as large.
    """
    use_threads(threads)
    cc3d, scipy = peer("cc3d"), peer("scipy.ndimage")
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    for name, mask in kinds(items, size).items():
        bytes_of = mask.to(torch.uint8).numpy()
        noise = torch.rand(mask.shape, generator=torch.Generator().manual_seed(1))
        x = (torch.where(mask, 0.75, 0.25) + 0.2 * (noise - 0.5))[:, None].requires_grad_()
        calls: dict[str, Any] = {"ritz": lambda clock, mask=mask: int(components(mask, 2)[1].sum())}
        if cc3d:
            calls["cc3d"] = lambda clock, images=bytes_of: sum(
                int(cc3d.connected_components(image, connectivity=8, return_N=True)[1]) for image in images
            )
        if scipy:
            calls["SciPy"] = lambda clock, images=bytes_of: sum(
                int(scipy.label(image, np.ones((3, 3)))[1]) for image in images
            )
        calls["layer"] = lambda clock, x=x: torch.autograd.grad(piecewise_constant(x).sum(), x)[0]
        found = interleaved(calls, repeats)
        for by, runs in found.items():
            figures[f"{name} {by}"] = runs.seconds
            count = "" if by == "layer" else str(runs.result)
            if count:
                figures[f"{name} {by} components"] = runs.result
            shown = "ritz, layer forward + backward" if by == "layer" else by
            rows.append((name, shown, seconds(runs.seconds), f"{runs.seconds / found['ritz'].seconds:.2f}", count))
    if memory:
        for name, times in (("bytes", 1), ("bytes large", 4)):
            figures[name] = alone(held, items=items * times, size=size)["bytes"]
            rows.append((f"noise, {items * times} images", "ritz, layer", f"{figures[name]:.0f} B a pixel", "", ""))
    text = table(f"Components of {items} images of {size} × {size}", HEAD, rows)
    if out is not None:
        write(text, out, "components.md")
    return figures


def kinds(items: int, size: int) -> dict[str, Tensor]:
    noise = torch.rand(items, size, size, generator=torch.Generator().manual_seed(0))
    blobs = torch.nn.functional.avg_pool2d(noise[:, None], 9, 1, 4)[:, 0] > 0.5
    return {"blobs": blobs, "noise": noise > 0.5, "spirals": spiral(size).expand(items, -1, -1).contiguous()}


def spiral(n: int) -> Tensor:
    """An arm of width one that winds inwards: rings, each opened at a corner and joined with the next."""
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    ring = torch.minimum(torch.minimum(y, n - 1 - y), torch.minimum(x, n - 1 - x))
    mask = ring % 2 == 0
    k = torch.arange(0, (n - 1) // 2, 2)
    mask[k + 1, k] = False
    mask[k[:-1] + 2, k[:-1] + 1] = True
    return mask


def held(items: int, size: int) -> dict[str, float]:
    """Bytes per pixel that the layer takes at most, forward and backward, beyond its input."""
    x = kinds(items, size)["noise"][:, None].float().requires_grad_()
    piecewise_constant(x[:1]).sum().backward()
    x.grad = None
    before = peak_memory()
    piecewise_constant(x).sum().backward()
    return {"bytes": (peak_memory() - before) / x.numel()}


if __name__ == "__main__":
    run(main)
