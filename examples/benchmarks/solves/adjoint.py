"""What a gradient costs: a solution of diffusion, and the same with the derivative of a loss in the coefficient.

    L(ν) = Σ u(ν)²    and    ∂L/∂ν    for all nodal values of ν

The problem is that of `diffusion`, in double precision. The adjoint system has the operator of the problem, and its
hierarchy is there already. "Repeated" is another solution with ν changed by 1 %, from nothing and from the solution
before, both to the same residual. Claim: the gradient satisfies Euler's identity Σ ν ∂L/∂ν = −2 L (u is homogeneous of
degree −1 in ν) as exactly as the systems are solved; and the ratios printed, which depend on the machine.
"""

import torch
from torch import Tensor

from examples.benchmarks.diffusion import RTOL, Problem, label, problem
from examples.benchmarks.solves.scaling import measure
from examples.benchmarks.timing import alone, interleaved, seconds, table, use_threads
from examples.command_line import run, write
from fem import compilation
from solvers import Multigrid, Newton

HEAD = ("cells", "forward", "with gradient", "ratio", "Euler's identity", "repeated", "warm start", "ratio")
MEMORY = ("cells", "unknowns", "forward", "with gradient")


def with_gradient(here: Problem, nu: Tensor) -> tuple[Tensor, Tensor]:
    """L and ∂L/∂ν."""
    nu = nu.detach().requires_grad_()
    loss = here.solve(nu).value.square().sum()
    loss.backward()
    assert nu.grad is not None
    return loss.detach(), nu.grad


def main(
    square: tuple[int, ...] = (256, 512, 1024),
    cube: tuple[int, ...] = (64,),
    repeats: int = 5,
    memory: int = 1,
    policy: str = "always",
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Solve and differentiate in turns.

    Args:
        square: cells in each direction in two dimensions, one grid after another
        cube: the same in three dimensions
        repeats: solutions of each kind
        memory: 1 measures the memory per unknown too, in processes of their own
        policy: when kernels are compiled, "always" or, where no compiler is installed, "never"
        threads: threads of PyTorch; 0 for all cores
        out: folder for the tables; nothing is written without it

    Returns:
        "512² forward", "512² with gradient", "512² again" and "512² warm" in seconds, "512² ratio" of the second over
        the first, "512² warm ratio" of the fourth over the third, "512² euler" and "512² … residual"; with `memory`
        "512² forward bytes" and "512² with gradient bytes", per unknown.
    """
    use_threads(threads)
    figures: dict[str, float] = {}
    rows, shares = [], []
    for dim, n in [(2, n) for n in square] + [(3, n) for n in cube]:
        here, size = problem(dim, n), label(dim, n)
        nu = here.coefficient()
        changed = nu * (1 + 0.01 * torch.sin(5 * torch.linspace(0, 1, len(nu), dtype=nu.dtype)))
        with compilation(policy):
            before = here.solve(nu)
            same = Newton(Multigrid(rtol=RTOL), rtol=float(before.residual))
            runs = interleaved(
                {
                    "forward": lambda clock, here=here, nu=nu: here.solve(nu).value,
                    "with gradient": lambda clock, here=here, nu=nu: with_gradient(here, nu),
                    "again": lambda clock, here=here, nu=changed: here.solve(nu).value,
                    "warm": lambda clock, here=here, nu=changed, u=before.value, same=same: (
                        here.solve(nu, u, same).value
                    ),
                },
                repeats,
            )
            loss, gradient = runs["with gradient"].result
            figures |= {f"{size} {name}": found.seconds for name, found in runs.items()}
            for name in ("again", "warm"):
                figures[f"{size} {name} residual"] = here.residual(changed, runs[name].result)
        figures[f"{size} ratio"] = runs["with gradient"].seconds / runs["forward"].seconds
        figures[f"{size} warm ratio"] = runs["warm"].seconds / runs["again"].seconds
        figures[f"{size} euler"] = abs(float((nu * gradient).sum() / (2 * loss)) + 1)
        times = {name: seconds(found.seconds) for name, found in runs.items()}
        ratios = [f"{figures[f'{size} {name}']:.2f}" for name in ("ratio", "warm ratio")]
        rows.append(
            (
                *(size, times["forward"], times["with gradient"], ratios[0], f"{figures[f'{size} euler']:.0e}"),
                *(times["again"], times["warm"], ratios[1]),
            )
        )
        if memory:
            for name, adjoint in (("forward", False), ("with gradient", True)):
                arguments = {"dim": dim, "cells": n, "repeats": 1, "policy": policy, "threads": threads}
                figures[f"{size} {name} bytes"] = alone(measure, **arguments, adjoint=adjoint)["bytes"] / len(nu)
            per_unknown = [f"{figures[f'{size} {name} bytes']:.0f} B" for name in ("forward", "with gradient")]
            shares.append((size, len(nu), *per_unknown))
    text = table("A solution and its gradient in ν", HEAD, rows)
    if memory:
        text += "\n" + table("Memory per unknown at the peak", MEMORY, shares)
    if out is not None:
        write(text, out, "adjoint.md")
    return figures


if __name__ == "__main__":
    run(main)
