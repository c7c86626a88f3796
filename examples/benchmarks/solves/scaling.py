"""Time and memory per unknown, from small grids to large ones.

The problem is that of `diffusion`, in double precision: from nodal values of ν to u by `minimize`, to a relative
residual of 10⁻⁸. Every grid has a process of its own, whose peak of memory is counted from after a small solution,
which has loaded the compiler and all else. Grids that would not fit into the memory that is left are skipped. Claim:
time and memory per unknown stay within a narrow range over all large sizes, in two and in three dimensions.
"""

import statistics
from typing import Any

import matplotlib.pyplot as plt
import torch

from examples.benchmarks.diffusion import label, problem
from examples.benchmarks.timing import alone, available_memory, peak_memory, seconds, table, timed, use_threads
from examples.command_line import run, save, write
from fem import compilation

HEAD = ("cells", "unknowns", "time", "time per unknown", "memory per unknown", "relative residual")


def measure(dim: int, cells: int, repeats: int, policy: str, threads: int, adjoint: bool = False) -> dict[str, float]:
    """Median seconds of one solution after warm-up, the peak of memory in bytes, and unknowns.

    With `adjoint` the solution is differentiated in ν too.
    """
    use_threads(threads)

    def once(n: int) -> Any:
        here = problem(dim, n)
        nu = here.coefficient().requires_grad_(adjoint)

        def call() -> torch.Tensor:
            u = here.solve(nu).value
            if adjoint:
                u.square().sum().backward()
            return u.detach()

        return here, nu.detach(), call

    with compilation(policy):
        once(8)[-1]()
        before = peak_memory()
        here, nu, call = once(cells)
        u = call()
        peak = peak_memory() - before
        times = [timed(call)[0] for _ in range(repeats)]
        found = {"unknowns": here.space.num_dofs, "bytes": peak, "residual": here.residual(nu, u)}
    return found | {"seconds": statistics.median(times)}


def draw(out: str, figures: dict[int, list[dict[str, float]]]) -> None:
    figure, axes = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
    for (dim, found), marker in zip(figures.items(), "os", strict=True):
        unknowns = [f["unknowns"] for f in found]
        axes.loglog(unknowns, [1e6 * f["seconds"] / f["unknowns"] for f in found], f"{marker}-", label=f"{dim}-D")
    axes.set(xlabel="unknowns", ylabel="time per unknown (µs)", title="−∇·(ν∇u) = 1, contrast 10³, residual 10⁻⁸")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    save(figure, out, "scaling.png")


def main(
    square: tuple[int, ...] = (256, 512, 1024, 2048, 4096),
    cube: tuple[int, ...] = (32, 64, 96, 128, 192),
    repeats: int = 3,
    policy: str = "always",
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Solve on every grid.

    Args:
        square: cells in each direction in two dimensions, ascending
        cube: the same in three dimensions
        repeats: solutions on each grid after the first
        policy: when kernels are compiled, "always" or, where no compiler is installed, "never"
        threads: threads of PyTorch; 0 for all cores
        out: folder for the picture and the table; nothing is written without it

    Returns:
        "512² seconds", "512² unknowns", "512² bytes" and "512² residual", and so for every grid.
    """
    use_threads(threads)
    figures: dict[str, float] = {}
    found: dict[int, list[dict[str, float]]] = {2: [], 3: []}
    rows = []
    for dim, sizes in ((2, square), (3, cube)):
        for n in sizes:
            last = found[dim][-1] if found[dim] else {"bytes": 0, "unknowns": 1}
            if last["bytes"] / last["unknowns"] * (n + 1) ** dim > available_memory():
                print(f"{label(dim, n)} cells would need more memory than there is: skipped")
                continue
            f = alone(measure, dim=dim, cells=n, repeats=repeats, policy=policy, threads=threads)
            found[dim].append(f)
            figures |= {f"{label(dim, n)} {key}": value for key, value in f.items()}
            share = (f"{1e6 * f['seconds'] / f['unknowns']:.2f} µs", f"{f['bytes'] / f['unknowns']:.0f} B")
            rows.append((label(dim, n), f["unknowns"], seconds(f["seconds"]), *share, f"{f['residual']:.1e}"))
            print(*rows[-1], sep="   ", flush=True)
    text = table("−∇·(ν∇u) = 1, contrast 10³, from ν to u", HEAD, rows)
    if out is not None:
        write(text, out, "scaling.md")
        draw(out, found)
    return figures


if __name__ == "__main__":
    run(main)
