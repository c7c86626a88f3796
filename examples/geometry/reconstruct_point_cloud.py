"""Spline surfaces from point clouds, by a network that is never told a control point.

The network is trained on clouds of noisy points with holes on ever new open B-spline patches. Its loss is the distance
of its surface and points alone (Cho et al., Differentiable Spline Approximations, NeurIPS 2021, section 4.3 and table
3). Noise and holes are put in as augmentation: what the loss compares with are points on the same patches without
them, so that the network learns to leave them out. Beside it: the same network trained equally long on the patches'
control points (Sharma et al., ParSeNet, ECCV 2020), and the control points of each cloud fitted directly, without any
network.

Distances are two-sided, means of squares, times 100, for patches of unit size. "To the surface" compares true and
reconstructed surfaces by dense points; "to the cloud" compares with the points that were given, and has a floor that
no method can go below: points lie apart and beside the surface.

Claims: to the surface below 0.03 for 20 × 20 control points and below 0.1 for 5 × 5, in both cases below what the
labels lead to.
"""

import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, markdown, run, save, write
from nurbs import (
    RandomPatches,
    SplineNet,
    Surface,
    area_parameters,
    chamfer,
    cloud_frame,
    control_points_of,
    fit_clouds,
    flat_patch,
    surface_distance,
    surface_points,
    train_reconstruction,
)

VALIDATION, TEST = 1_000_000, 2_000_000  # numbers of clouds that no training reaches
DENSE = (64, 64)
SAMPLES = 40  # of `surface_distance`, whose floor is then 0.0013 at most
TARGET = 1024  # points that the loss compares with
LABEL_STEPS = 1.16  # of the supervised training in the time of one of the other
NOISE = 0.005  # of clouds on the patches of files; that of the others is 0 to 0.01
Truth = Surface | list[Surface]


def files(path: str, num_points: int) -> tuple[Tensor, list[Surface]]:
    """Clouds on the surfaces in a folder and below it, and these surfaces, all brought to unit size."""
    generator, clouds, surfaces = torch.Generator().manual_seed(0), [], []
    read = import_module("nurbs.files.formats").read_geometry
    for patch in (patch for file in sorted(Path(path).rglob("*.dat")) for patch in read(file)):
        box = surface_points(patch)
        low, high = box.amin(0), box.amax(0)
        unit = patch.replace(control_points=(patch.control_points - (low + high) / 2) / (high - low).max())
        numbers = torch.rand(num_points, 3, dtype=unit.dtype, generator=generator)
        noise = NOISE * torch.randn(num_points, 3, dtype=unit.dtype, generator=generator)
        clouds.append((unit.at(area_parameters(unit, numbers)) + noise).float())
        surfaces.append(unit.to(torch.float32))
    if not clouds:
        raise ValueError(f"`--patches {path}` needs a folder with files *.dat in it or below; there are none.")
    return torch.stack(clouds), surfaces


def distances(control_points: Tensor, points: Tensor, truth: Truth) -> dict[str, float]:
    """100 times the distances to the true surfaces, in the mean and in the middle, and to the clouds."""
    ours = Surface(control_points)
    if isinstance(truth, Surface):
        to_surface = surface_distance(ours, truth, SAMPLES)
    else:
        to_surface = torch.cat([surface_distance(ours[[k]], other, SAMPLES) for k, other in enumerate(truth)])
    to_cloud = chamfer(points, surface_points(ours, DENSE))
    values = {"mean": to_surface.mean(), "median": to_surface.median(), "cloud": to_cloud.mean()}
    return {name: 100 * float(value) for name, value in values.items()}


def trained(
    n: int, loss: Any, clouds: RandomPatches, steps: int, batch: int, items: int, out: str | None
) -> tuple[SplineNet, list[dict[str, float]]]:
    torch.manual_seed(0)
    network = SplineNet((n, n))
    done = train_reconstruction(
        network,
        clouds,
        steps,
        batch,
        loss=loss,
        num_points=clouds.num_points // 2,
        target=replace(clouds, num_points=TARGET, noise=0.0, holes=0),
        held_out=clouds(VALIDATION, min(items, 64)),
        every=max(steps // 20, 1),
        folder=None if out is None else folder(out) / f"{n} {loss}",
    )
    return network.eval(), done.history


@torch.no_grad()
def answers(n: int, networks: dict[str, SplineNet], points: Tensor, truth: Truth) -> dict[str, tuple[Tensor, float]]:
    """Control points and seconds per cloud, by method."""
    true = [truth] if isinstance(truth, Surface) else truth
    first, refined = networks["unsupervised"], "unsupervised, then 20 steps of fitting"
    methods = {
        "rectangle around the cloud": lambda: flat_patch(points, (n, n)),
        **{name: (lambda network=network: network(points)) for name, network in networks.items()},
        refined: lambda: fit_clouds(points, (n, n), first(points), steps=20, lr=0.005).control_points,
        "direct fit, 100 steps": lambda: fit_clouds(points, (n, n), steps=100).control_points,
        "true surface, least squares": lambda: torch.cat(
            [control_points_of(s, (n, n)).reshape(-1, n, n, 3) for s in true]
        ),
    }
    found = {}
    for name, method in methods.items():
        begin = time.perf_counter()
        found[name] = method(), (time.perf_counter() - begin) / len(points)
    return found


def figure(cloud: Tensor, ours: Surface, truth: Surface, curves: dict[str, Any], level: float, out: str) -> None:
    """A cloud, what the network makes of it, what it came from, and how the error fell."""
    drawn = plt.figure(figsize=(17, 4.2), layout="constrained")
    frame = cloud_frame(cloud[None])
    turned = frame.axes[0].mT[:, [1, 0, 2]]  # the longer side along y, the normal upwards
    x, axes = (cloud @ turned).numpy(), [drawn.add_subplot(1, 4, k + 1, projection="3d") for k in range(3)]
    axes[0].scatter(*x.T, s=4, c=x[:, 2], cmap="viridis", depthshade=False)
    for ax, surface in zip(axes[1:], (ours, truth), strict=True):
        grid = (surface_points(surface, (40, 40)) @ turned).reshape(40, 40, 3).numpy()
        ax.plot_surface(*grid.T, color="#8fb8de", rcount=40, ccount=40, linewidth=0, alpha=0.85)
    ax, net = axes[1], (ours.control_points @ turned).numpy()
    for lines in (net, net.swapaxes(0, 1)):
        for line in lines:
            ax.plot(*line.T, "o-", color="#b03a2e", linewidth=0.6, markersize=2)
    for ax, title in zip(axes, ("cloud", "network, with control net", "true surface"), strict=True):
        ax.set(title=title, xticklabels=[], yticklabels=[], zticklabels=[])
        ax.set(**{f"{name}lim": (x[:, k].min(), x[:, k].max()) for k, name in enumerate("xyz")})
        ax.set_box_aspect(x.max(0) - x.min(0))
    ax = drawn.add_subplot(1, 4, 4)
    for name, history in curves.items():
        style = "-" if "unsupervised" in name else "--"
        ax.plot([h["seconds"] for h in history], [100 * h["chamfer"] for h in history], style, label=name)
    ax.axhline(level, color="black", linewidth=0.8, linestyle=":", label="direct fit")
    ax.set(yscale="log", xlabel="seconds of training", ylabel="100 × distance to the true surface", title="held out")
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize="small")
    save(drawn, out, "reconstruct_point_cloud.png")


def main(
    grids: tuple[int, ...] = (5,),
    steps: int = 200,
    batch: int = 8,
    items: int = 32,
    num_points: int = 700,
    patches: str | None = None,
    out: str | None = None,
) -> dict[str, float]:
    """Train with and without labels, compare with direct fitting on clouds never seen, draw.

    Args:
        grids: control points per direction, one run for each number
        steps: of the training without labels, 0.7 s each with the default batch on one core; the other takes as long
        batch: clouds per step
        items: clouds to compare on
        num_points: points per cloud; while training the network sees half of them
        patches: folder with patches of files (smesh, *.dat) to compare on as well
        out: folder for picture, table and the trainings' checkpoints; nothing is written without it

    Returns:
        For each number n of `grids` and method "{n} {method} mean", "median" (to the true surface) and "cloud", all
        times 100, "… of files" for patches from files, and "{n} {method} seconds" for the trainings.
    """
    clouds, figures, rows, curves = RandomPatches(num_points), {}, [], {}
    sets: dict[str, tuple[Tensor, Truth]] = {"": clouds(TEST, items)}
    if patches is not None:
        sets[" of files"] = files(patches, num_points)
    drawn = None
    for n in grids:
        networks = {}
        for name, loss in (("unsupervised", "chamfer"), ("supervised", "control_points")):
            count = steps if loss == "chamfer" else round(LABEL_STEPS * steps)
            networks[name], history = trained(n, loss, clouds, count, batch, items, out)
            curves[f"{n} × {n}, {name}"] = history
            figures[f"{n} {name} seconds"] = history[-1]["seconds"]
        for where, (points, truth) in sets.items():
            found = answers(n, networks, points, truth)
            for method, (control_points, seconds) in found.items():
                measured = distances(control_points, points, truth)
                figures |= {f"{n} {method} {name}{where}": value for name, value in measured.items()}
                numbers = [f"{measured[name]:.4f}" for name in ("mean", "median", "cloud")]
                rows.append((f"{n} × {n}", f"{method}{where}", *numbers, f"{1e3 * seconds:.1f}"))
            if drawn is None and isinstance(truth, Surface):
                ours = Surface(found["unsupervised"][0])
                item = int(surface_distance(ours, truth, SAMPLES).sort().indices[items // 2])
                level = figures[f"{n} direct fit, 100 steps mean"]
                drawn = (points[item], ours[item], truth[item], curves, level)
    head = ("grid", "100 × distance", "to the surface, mean", "median", "to the cloud", "ms per cloud")
    table = markdown(head, rows)
    print(table)
    if out is not None:
        write(table, out, "reconstruct_point_cloud.md")
        assert drawn is not None
        figure(*drawn, out)
    return figures


if __name__ == "__main__":
    run(main)
