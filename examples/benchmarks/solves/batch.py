"""Many diffusion problems at once, beside a loop over SciPy's sparse direct solver in the same run.

The problem is that of `diffusion`: as many smooth coefficients as `items`, each of contrast 10³, on one grid, in double
precision. ritz takes all of them in one `minimize`, from nodal values of ν to u, to a relative residual of 10⁻⁸; the
loop starts from assembled matrices. Runs are interleaved, and medians compared. Claim: both solutions agree; and the
ratios printed, which depend on the machine.
"""

import numpy as np
import scipy.sparse.linalg

from examples.benchmarks.diffusion import label, problem
from examples.benchmarks.timing import interleaved, seconds, table, use_threads
from examples.command_line import run, write
from fem import compilation

HEAD = ("cells", "items", "ritz", "SciPy", "ratio", "relative residual", "difference")


def main(
    square: tuple[int, ...] = (64, 128),
    items: int = 64,
    repeats: int = 5,
    policy: str = "always",
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Solve in turns and compare.

    Args:
        square: cells in each direction, one grid after another
        items: coefficients at once
        repeats: solutions of each kind
        policy: when kernels are compiled, "always" or, where no compiler is installed, "never"
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        "64² ritz" and "64² SciPy" in seconds, "64² ratio" of the second over the first, "64² residual" (of ritz, the
        largest of all items), "64² difference" of both solutions relative to the largest value.
    """
    use_threads(threads)
    figures: dict[str, float] = {}
    rows = []
    for n in square:
        here = problem(2, n)
        nu = here.coefficient(items)
        assembled = [here.matrix(here.space.function(field)) for field in nu]
        free = assembled[0][2]
        with compilation(policy):
            runs = interleaved(
                {
                    "ritz": lambda clock, here=here, nu=nu: here.solve(nu).value,
                    "SciPy": lambda clock, all=assembled: [scipy.sparse.linalg.spsolve(A, b) for A, b, _ in all],
                },
                repeats,
            )
        u, theirs, size = runs["ritz"].result, np.stack(runs["SciPy"].result), label(2, n)
        difference = float(abs(u.numpy()[:, free] - theirs).max() / abs(theirs).max())
        relative, ratio = here.residual(nu, u), runs["SciPy"].seconds / runs["ritz"].seconds
        figures |= {f"{size} {name}": found.seconds for name, found in runs.items()}
        figures |= {f"{size} ratio": ratio, f"{size} residual": relative, f"{size} difference": difference}
        times = [seconds(found.seconds) for found in runs.values()]
        rows.append((size, items, *times, f"{ratio:.1f}", f"{relative:.1e}", f"{difference:.0e}"))
    text = table("−∇·(ν∇u) = 1, many ν at once", HEAD, rows)
    if out is not None:
        write(text, out, "batch.md")
    return figures


if __name__ == "__main__":
    run(main)
