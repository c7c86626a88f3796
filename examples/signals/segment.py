"""Segmentation by a UNet that ends in the piecewise-constant layer, beside the same UNet without it.

Both see the same images in the same order, from the same weights, for the same number of steps; the layer comes in
for the last fifth. They are compared on images neither has seen, as is the first one with its masks cleaned afterwards
(small components dropped, small holes filled, as the layer does it). Folders of images and masks are read (Weizmann
horses, BBBC038 and the like); synthetic nuclei are the default. Claim: the layer's masks overlap as well or better,
with fewer false components and holes.

Source: M. Cho et al., Differentiable spline approximations, NeurIPS 2021, section 4.2, Table 1 and Figure 1.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, markdown, run, save, write
from fem.support.files import put
from segmentation import (
    ImageSet,
    PiecewiseConstant,
    clean_mask,
    measures,
    predict_masks,
    read_images,
    split,
    synthetic_nuclei,
    train_segmentation,
)
from solvers import UNet

ROWS = {"baseline": "UNet", "cleaned": "UNet, cleaned afterwards", "layer": "UNet with the layer"}
HEAD = ("model", "Jaccard, mean", "Jaccard, pooled", "false components", "holes", "boundary F", "object F1", "minutes")


def main(
    data: str | None = None,
    size: int = 128,
    crop: int = 0,
    turn: float = 180.0,
    steps: int = 600,
    batch: int = 16,
    width: int = 8,
    depth: int = 4,
    seeds: tuple[int, ...] = (0,),
    min_size: int = 12,
    fill_holes: int = 30,
    background: str = "components",
    warm_up: float = 0.8,
    mix: float = 0.2,
    count: int = 120,
    precision: str = "bf16-mixed",
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Train both models for each seed, and compare.

    Args:
        data: folder with `images` and `masks` or `labels`; synthetic nuclei without it
        size: pixels per side that images are resized to
        crop: pixels per side of the squares to train on; 0 for whole images
        turn: largest angle of the augmentation in degrees
        steps: of training
        batch: images in a step
        width: channels of the UNet's first level
        depth: how often the UNet halves the image
        seeds: of split, weights and augmentation
        min_size: pixels; smaller components are dropped
        fill_holes: pixels; holes up to this size are filled
        background: of the layer: keep, components or single
        warm_up: share of the steps without the layer
        mix: share of the layer in the loss
        count: synthetic images
        precision: of Lightning: bf16-mixed or 32-true
        threads: threads of PyTorch; 0 for all cores
        out: folder for table, panels, checkpoints and figures per seed, where an interrupted run goes on

    Returns:
        means over seeds, such as "layer jaccard", "baseline holes", "cleaned false".
    """
    if threads:
        torch.set_num_threads(threads)
    images = synthetic_nuclei(count, (size, size)) if data is None else read_images(data, (size, size))
    layer = PiecewiseConstant(background=background, min_size=min_size, fill_holes=fill_holes)
    options = {
        "batch": batch,
        "crop": crop or None,
        "turn": turn,
        "warm_up": warm_up,
        "mix": mix,
        "precision": precision,
        "clip": 0.0,
    }
    results: list[dict[str, dict[str, float]]] = []
    for seed in seeds:
        train, test = split(images, seed=seed)
        path = None if out is None else folder(out) / f"seed_{seed}.json"
        networks = {name: None if name == "baseline" else layer for name in ("baseline", "layer")}
        found: dict[str, dict[str, float]] = {}
        shown: dict[str, Tensor] = {}
        for name, last in networks.items():
            torch.manual_seed(seed)
            network = UNet(1, 1, width=width, depth=depth, coordinates=False, norm_first=True)
            where = None if out is None else Path(out) / f"{name}_{seed}"
            done = train_segmentation(network, train, steps, layer=last, seed=seed, folder=where, **options)
            minutes = done.history[-1]["seconds"] / 60
            masks = predict_masks(network, test.images, last) > 0.5
            shown[name] = masks
            found[name] = measures(masks, test.labels) | {"minutes": minutes}
            if name == "baseline":
                cleaned = clean_mask(masks, min_size, fill_holes=fill_holes)
                found["cleaned"] = measures(cleaned, test.labels) | {"minutes": minutes}
        results.append(found)
        print(f"seed {seed}: " + ", ".join(f"{n} {100 * f['jaccard']:.2f} %" for n, f in found.items()), flush=True)
        if path is not None:
            put(path, lambda p, found=found: p.write_text(json.dumps(found, indent=1), encoding="utf-8"))
            save(panels(test, shown), str(out), f"panels_{seed}.png")
    rows = [(ROWS[name], *(entry(results, name, key) for key in results[0][name])) for name in ROWS]
    table = markdown(HEAD, rows)
    title = (
        f"{len(images)} images of {size} × {size}, {len(results)} seeds, {steps} steps of {batch}: mean ± deviation\n\n"
    )
    print(title + table)
    if out is not None:
        write(title + table, out, "segment.md")
    return {f"{name} {key}": mean(r[name][key] for r in results) for name in ROWS for key in results[0][name]}


def entry(results: list[dict[str, dict[str, float]]], name: str, key: str) -> str:
    """Mean and standard deviation over seeds, in per cent where it is a share."""
    scale, digits = (1, 2) if key in ("false", "holes", "minutes") else (100, 2)
    values = [scale * r[name][key] for r in results]
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 and key != "minutes" else ""
    return f"{mean(values):.{digits}f}{spread}"


def panels(test: ImageSet, shown: dict[str, Tensor], rows: int = 6) -> Any:
    """Image, truth, baseline and layer for the images on which the two differ most."""
    differing = (shown["baseline"] != shown["layer"]).flatten(1).sum(1)
    chosen = differing.argsort(descending=True)[:rows].sort().values.tolist()
    figure, axes = plt.subplots(len(chosen), 4, figsize=(8, 2 * len(chosen)), layout="constrained", squeeze=False)
    for row, i in zip(axes, chosen, strict=True):
        row[0].imshow(test.images[i, 0].numpy(), cmap="gray")
        for axis, mask in zip(row[1:], (test.masks[i], shown["baseline"][i], shown["layer"][i]), strict=True):
            axis.imshow(mask.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for axis, name in zip(axes[0], ("image", "truth", "UNet", "UNet with the layer"), strict=True):
        axis.set_title(name, fontsize="medium")
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


if __name__ == "__main__":
    run(main)
