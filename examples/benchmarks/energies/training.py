"""A step of training a UNet on an energy, part by part, beside the loop of convolutions that one writes by hand.

A step draws problems (log ν of `ExponentialSeries`), runs the network, evaluates J(u) = ∫ ½ν|∇u|² − u dx with u = 0 on
the boundary and its gradient in u (the loss part), and goes back through the network and on by its optimiser. The peers
differ in the loss part alone: one convolution per Gauss point and slot, as in DiffNet (Balu et al., 2021), or all of
them as channels of one, in PyTorch without compilation. Runs are interleaved and medians compared. Claims: on a CPU the
loss part is at least 5 times as fast as one convolution after another, and less than 15 % of the step.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from examples.benchmarks.energies.energy import convolutions, density
from examples.benchmarks.timing import Clock, interleaved, seconds, table, use_threads
from examples.command_line import run, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, compilation, unit_square
from solvers import DiffusionProblems, ExponentialSeries, Muon, UNet

PARTS = ("problems", "network", "loss", "backward", "optimiser")
HEAD = ("loss by", *PARTS, "step", "loss / step", "× ritz's loss", "steps/s", "samples/s", "difference")


def main(
    nodes: int = 65,
    items: int = 16,
    width: int = 16,
    depth: int = 2,
    repeats: int = 20,
    device: str = "cpu",
    policy: str = "always",
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Train a few steps in turns and compare.

    Args:
        nodes: nodes in each direction
        items: problems per step
        width: channels of the first level of the UNet
        depth: how often it halves the grid
        repeats: steps of each kind
        device: where to train, such as cuda
        policy: when ritz's kernels are compiled, "always" or, where no compiler is installed, "never"
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        For each of "ritz", "one by one" and "all at once": "… loss" and "… step" in seconds; "share" of the loss in
        ritz's step; "one by one ratio" and "all at once ratio" of loss parts; "difference" of the gradients.
    """
    use_threads(threads)
    V = FunctionSpace(unit_square(nodes - 1, dtype=torch.float32, device=device), Lagrange(1))
    held = Dirichlet(V, {"boundary": 0.0})
    energy, problems = Energy(V, density, held), DiffusionProblems(V, ExponentialSeries())
    inner = V.to_grid(held.apply(torch.ones(V.shape, dtype=V.dtype, device=device)))

    def ritz(u: Tensor, nu: Tensor) -> Tensor:
        with compilation(policy):
            return energy(u, V.function(nu))

    def by_hand(at_once: bool) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda u, nu: convolutions(V, nu, at_once)(V.from_grid(V.to_grid(u) * inner))

    losses = {"ritz": ritz, "one by one": by_hand(False), "all at once": by_hand(True)}
    functions = {}
    for name, J in losses.items():
        torch.manual_seed(0)
        network = UNet(width=width, depth=depth).to(device)
        functions[name] = stepper(network, problems, J, items, V)
    runs = interleaved(functions, repeats)
    figures, rows, wanted = {}, [], runs["ritz"]
    for name, found in runs.items():
        found = replace(found, seconds=sum(found.laps.values()))
        off = float((found.result - wanted.result).abs().max() / wanted.result.abs().max())
        ratio, share = found.laps["loss"] / wanted.laps["loss"], found.laps["loss"] / found.seconds
        figures |= {f"{name} loss": found.laps["loss"], f"{name} step": found.seconds, f"{name} ratio": ratio}
        figures |= {"share": share} if name == "ritz" else {f"{name} difference": off}
        speed = (f"{100 * share:.1f} %", f"{ratio:.1f}", f"{1 / found.seconds:.1f}", f"{items / found.seconds:.0f}")
        rows.append((name, *[seconds(found.laps[p]) for p in PARTS], seconds(found.seconds), *speed, f"{off:.0e}"))
    card = f" on {torch.cuda.get_device_name()}" if device.startswith("cuda") else ""
    title = f"A training step, {items} × {nodes}² nodes, UNet of width {width} and depth {depth}, float32{card}"
    text = table(title, HEAD, rows)
    if out is not None:
        write(text, out, "training.md")
    return figures


def stepper(
    network: nn.Module,
    problems: DiffusionProblems,
    J: Callable[[Tensor, Tensor], Tensor],
    items: int,
    V: FunctionSpace,
) -> Callable[[Clock], Tensor]:
    """A function that takes one step and times its parts; it returns a gradient in u that is always the same."""
    optimiser, taken = Muon(network.named_parameters()), [0]
    fixed = V.function(torch.rand(items, V.num_dofs, generator=torch.Generator().manual_seed(0)).to(V.device))

    def lap(clock: Clock, name: str) -> None:
        if V.device.type == "cuda":
            torch.cuda.synchronize(V.device)
        clock.lap(name)

    def step(clock: Clock) -> Tensor:
        images, (nu,) = problems(items * taken[0], items)
        taken[0] += 1
        lap(clock, "problems")
        image = network(images)
        lap(clock, "network")
        u = V.from_grid(image.detach()[:, 0]).requires_grad_()
        J(u, nu.values).mean().backward()  # type: ignore[union-attr]
        lap(clock, "loss")
        assert u.grad is not None
        optimiser.zero_grad()
        image.backward(V.to_grid(u.grad)[:, None])
        lap(clock, "backward")
        optimiser.step()
        lap(clock, "optimiser")
        v = fixed.values.clone().requires_grad_()
        J(v, 1 + fixed.values).mean().backward()
        assert v.grad is not None
        return v.grad

    return step


if __name__ == "__main__":
    run(main)
