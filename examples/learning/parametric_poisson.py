"""A network that solves a family of diffusion problems, trained on nothing but their energy, with a certificate.

    −∇·(ν(ω) ∇u) = 0 in the unit square,    u = 1 on the left, u = 0 on the right,    no flux elsewhere

for log ν = Σᵢ ωᵢ λᵢ ξᵢ(x) ηᵢ(y), ω in [−3, 3]⁴ (Cho et al., Differentiable Spline Approximations, NeurIPS 2021, eq. 14
and figure 3). A UNet sees the image of log ν; its output is the logit of u against that of 1 − x, so boundary values
and bounds of u hold exactly. Without training, weights that come with this file are used; `--steps 12000` trains
afresh (22 minutes on two cores).

Claims: on problems never seen the relative error in L2 is below 5e-3 in the mean and 5e-2 at most; at the figure's ω no
nodal value is wrong by more than 0.005 (the paper: 0.01); and every answer says how wrong it is.
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from examples.certificate import FIGURE, problem
from examples.command_line import folder, run, save
from fem import FunctionSpace, plot, write_vtk
from solvers import (
    BoundedLift,
    DiffusionProblems,
    ExponentialSeries,
    UNet,
    certify,
    load_network,
    minimize,
    predict,
    train_surrogate,
)

WEIGHTS = Path(__file__).with_name("parametric_poisson.safetensors")
TRAINED, HELD_OUT = 0, 1  # seeds


def surrogate(width: int = 16, depth: int = 4) -> nn.Module:
    """A UNet of smooth functions without norms, wide enough in its receptive field to see the whole square."""
    return BoundedLift(
        UNet(width=width, depth=depth, max_width=4 * width, norm=None, nonlinearity=nn.GELU()), lambda x: 1 - x[..., 0]
    )


def trained(weights: str | None = None, device: str = "cpu") -> nn.Module:
    """The network with weights of a file, or those that come with this one."""
    network = surrogate()
    load_network(network, weights or WEIGHTS)
    return network.to(device).eval()


def train(
    cells: int,
    steps: int,
    batch: int,
    width: int,
    depth: int,
    device: str,
    precision: str,
    devices: int,
    out: str | None,
) -> nn.Module:
    V, energy, _ = problem(cells, torch.float32, device)
    series = ExponentialSeries()
    torch.manual_seed(0)
    done = train_surrogate(
        surrogate(width, depth),
        energy,
        DiffusionProblems(V, series, seed=TRAINED),
        steps,
        batch,
        held_out=DiffusionProblems(V, series, seed=HELD_OUT)(1_000_000, 64),
        every=500,
        folder=None if out is None else folder(out) / "training",
        precision=precision,
        devices=devices,
    )
    print(f"{done.samples} samples in {done.seconds:.0f} s")
    return done.network.eval()


def figure(V: FunctionSpace, fields: dict[str, Tensor], indicator: Tensor, cells: int, out: str) -> None:
    """Figure 3 with one panel more: where the certificate sees the error."""
    drawn, axes = plt.subplots(1, 5, figsize=(18, 3.2), layout="constrained")
    for ax, (title, field) in zip(axes, fields.items(), strict=False):
        plot(V, field, ax).set_title(title)
    image = axes[4].imshow(indicator.reshape(cells, cells).cpu().numpy(), origin="lower", extent=(0, 1, 0, 1))
    axes[4].set(title="certified error by cell", xlabel="x", ylabel="y")
    drawn.colorbar(image, ax=axes[4])
    save(drawn, out, "parametric_poisson.png")


def main(
    cells: int = 64,
    steps: int = 0,
    batch: int = 16,
    width: int = 16,
    depth: int = 4,
    items: int = 256,
    device: str = "cpu",
    precision: str = "32-true",
    devices: int = 1,
    out: str | None = None,
) -> dict[str, float]:
    """Train, or load what was trained; compare with finite elements; draw.

    Args:
        cells: cells in each direction
        steps: training steps; 0 takes the weights that come with this file
        batch: problems per step
        width: channels of the first level of the UNet
        depth: how often it halves the grid
        items: held-out problems to compare on, beside the figure's
        device: where to train and compare, such as cuda
        precision: of the convolutions while training, such as bf16-mixed
        devices: processes that share the training
        out: folder for picture, VTK file and the training's checkpoints; nothing is written without it

    Returns:
        "l2", "l2 max": mean and maximum of ‖v − u‖ / ‖u‖ over the held-out problems, "energy error": the mean in the
        energy norm; "figure": largest nodal error at the figure's ω; "certificate": estimated over true energy error
        there; "lower", "upper": guaranteed bounds of its energy error against the exact solution, discretisation
        included; "cycles": for a relative energy error of 1e-6.
    """
    training = (cells, steps, batch, width, depth, device, precision, devices, out)
    network = train(*training) if steps else trained(device=device)
    if int(os.environ.get("LOCAL_RANK", 0)):
        return {}  # processes beside the first have done their part
    V, energy, norm = problem(cells, device=device)
    series = ExponentialSeries()
    omega = torch.cat([torch.tensor([FIGURE], dtype=V.dtype), series.sample(items, seed=HELD_OUT)])
    nu = series(omega.to(V.device), V.dof_coordinates)
    images, params = DiffusionProblems(V, series).of(nu)
    u = minimize(energy, params).value
    raw = predict(network, energy, images, params, tol=None)
    better = predict(network, energy, images, params, tol=1e-6)
    v, certificate = raw.value, raw.certificate
    distance = (v - u).norm(dim=-1) / u.norm(dim=-1)
    error, size = ((2 * norm(w, *params)).clamp(min=0).sqrt() for w in (v - u, u))
    first = certify(energy, v[0], (V.function(params[0].values[0]),))  # type: ignore[union-attr]
    assert first.upper_bound is not None
    assert first.bound_indicator is not None
    figures = {
        "l2": float(distance[1:].mean()),
        "l2 max": float(distance[1:].max()),
        "energy error": float((error / size)[1:].mean()),
        "figure": float((v - u)[0].abs().max()),
        "certificate": float((certificate.energy_error / error)[0]),
        "cycles": float(better.cycles.max()),
        "lower": float(first.lower_bound),
        "upper": float(first.upper_bound),
    }
    print(
        f"{items} held-out problems on {cells + 1}² nodes: relative L2 error {figures['l2']:.1e} in the mean, "
        f"{figures['l2 max']:.1e} at most; {figures['energy error']:.1e} in the energy norm, and below 1e-6 after "
        f"{int(figures['cycles'])} cycles.\n"
        f"The figure's problem: largest nodal error {figures['figure']:.1e} (published: 1e-2); certified energy error "
        f"{float(certificate.energy_error[0]):.2e}, true {float(error[0]):.2e}. From the exact solution of the "
        f"differential equation it is {figures['lower']:.2e} to {figures['upper']:.2e} away, guaranteed."
    )
    if out is not None:
        fields = {"log₁₀ ν": nu[0].log10(), "network": v[0], "finite elements": u[0], "difference": (v - u)[0]}
        figure(V, {k: f.cpu() for k, f in fields.items()}, first.indicator, cells, out)
        written = {"nu": nu[0], "network": v[0], "finite_elements": u[0], "difference": (v - u)[0]}
        cell_data = {"certified_error": first.indicator, "bound_of_true_error": first.bound_indicator}
        print(f"wrote {write_vtk(folder(out) / 'parametric_poisson.vtu', V, written, cell_data)}")
    return figures


if __name__ == "__main__":
    run(main)
