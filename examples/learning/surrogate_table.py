"""A surrogate beside what any surrogate must be seen beside, on a thousand problems that it has never met.

The family of `parametric_poisson`: −∇·(ν(ω) ∇u) = 0, u = 1 on the left and 0 on the right. Each row answers the same
held-out problems: u = 1 − x; Galerkin projection onto 16, 32 and 64 snapshots; the UNet; the UNet and one multigrid
cycle; `predict` to three tolerances, and to the last of them for ω from [−4, 4]⁴, outside of the training's [−3, 3]⁴;
the minimiser plus noise, to try the certificate; and the minimiser itself, by multigrid. Errors are distances from the
discrete minimiser: ‖v − u‖ / ‖u‖ over nodes and in the energy norm. "Certified" is what `certify` says of that
distance, without knowing u, over the truth. "Bound" is its guaranteed bound over the distance from a reference on a
grid four times as fine, for the first problems.

Claims: certified errors of the UNet are within 10 % of the truth and never above; bounds never below; every answer of
`predict` meets its tolerance; a cycle makes the UNet's error smaller by an order of magnitude.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from examples.certificate import problem
from examples.command_line import markdown, run, write
from examples.learning.parametric_poisson import HELD_OUT, trained
from fem import Energy, FunctionSpace
from fem.forms.parameters import Parameter
from solvers import DiffusionProblems, ExponentialSeries, ReducedBasis, certify, minimize, predict

HEAD = ("answer", "L2, mean", "L2, max", "|error|, max", "energy, mean", "energy, max")
HEAD += ("certified / true", "bound / true", "cycles", "ms per problem")
Answer = Callable[[Tensor, tuple[Parameter, ...]], tuple[Tensor, int]]  # of images and parameters: dofs and cycles


@dataclass(frozen=True)
class Problems:
    """Held-out problems in batches, with their minimisers, and references on a finer grid for the first of them."""

    space: FunctionSpace
    energy: Energy
    norm: Energy
    batches: list[tuple[Tensor, tuple[Parameter, ...], Tensor]]
    finer: tuple[FunctionSpace, Energy, tuple[Parameter, ...], Tensor] | None

    @classmethod
    def made(
        cls, parts: tuple[FunctionSpace, Energy, Energy], bound: float, items: int, finer: int, batch: int
    ) -> "Problems":
        V, energy, norm = parts
        problems, batches, reference = DiffusionProblems(V, ExponentialSeries(bound=bound), seed=HELD_OUT), [], None
        for start in range(0, items, batch):
            images, params = problems(start, min(batch, items - start))
            batches.append((images, tuple(params), minimize(energy, params).value))
        if finer:
            W, fine, fine_norm = problem(4 * round(V.num_dofs**0.5 - 1))
            (nu,) = problems(0, finer)[1]
            params = (W.function(V.evaluate(nu.values, W.dof_coordinates)),)  # type: ignore[union-attr]
            reference = (W, fine_norm, params, minimize(fine, params).value)
        return cls(V, energy, norm, batches, reference)

    def size(self, v: Tensor, params: tuple[Parameter, ...]) -> Tensor:
        return (2 * self.norm(v, *params)).clamp(min=0).sqrt()


def measured(problems: Problems, answer: Answer) -> dict[str, float]:
    """Errors, certificate, time."""
    distance, largest, relative, ratio, seconds, cycles = [], [], [], [], 0.0, 0
    for images, params, u in problems.batches:
        start = time.perf_counter()
        v, added = answer(images, params)
        seconds, cycles = seconds + time.perf_counter() - start, max(cycles, added)
        error = problems.size(v - u, params)
        distance.append((v - u).norm(dim=-1) / u.norm(dim=-1))
        largest.append((v - u).abs().amax(-1))
        relative.append(error / problems.size(u, params))
        ratio.append(certify(problems.energy, v, params).energy_error / error.clamp(min=1e-300))
    found = {"l2": torch.cat(distance).mean(), "l2 max": torch.cat(distance).max(), "max": torch.cat(largest).max()}
    found |= {"energy": torch.cat(relative).mean(), "energy max": torch.cat(relative).max()}
    found |= {"lowest": torch.cat(ratio).min(), "highest": torch.cat(ratio).max()}
    if problems.finer is not None:
        W, norm, fine_params, reference = problems.finer
        images, params, _ = problems.batches[0]
        few = len(reference)
        first = tuple(problems.space.function(p.values[:few]) for p in params)  # type: ignore[union-attr]
        v, _ = answer(images[:few], first)
        true = (2 * norm(problems.space.evaluate(v, W.dof_coordinates) - reference, *fine_params)).sqrt()
        bound = certify(problems.energy, v, first).upper_bound
        assert bound is not None
        found |= {"bound": (bound / true).min(), "bound mean": (bound / true).mean()}
    count = sum(len(images) for images, _, _ in problems.batches)
    return {k: float(x) for k, x in found.items()} | {"cycles": cycles, "ms": 1e3 * seconds / count}


def row(name: str, found: dict[str, float]) -> tuple[str, ...]:
    errors = tuple(f"{found[k]:.1e}" for k in ("l2", "l2 max", "max", "energy", "energy max"))
    exact = found["energy max"] < 1e-11  # nothing but rounding is left to certify
    certified = "" if exact else f"{found['lowest']:.3f} to {found['highest']:.3f}"
    bound = f"{found['bound']:.2f}, mean {found['bound mean']:.2f}" if "bound" in found else ""
    return name, *errors, certified, bound, str(int(found["cycles"]) or ""), f"{found['ms']:.2f}"


def main(
    cells: int = 64,
    items: int = 1000,
    outside: int = 100,
    finer: int = 32,
    snapshots: tuple[int, ...] = (16, 32, 64),
    tolerances: tuple[float, ...] = (1e-3, 1e-6, 1e-10),
    batch: int = 100,
    weights: str | None = None,
    out: str | None = None,
) -> dict[str, float]:
    """Answer the held-out problems in every way and compare.

    Args:
        cells: cells in each direction
        items: held-out problems with ω in [−3, 3]⁴
        outside: problems with ω in [−4, 4]⁴
        finer: problems to compare with a reference on a grid four times as fine; 0 for none
        snapshots: solutions that reduced bases are made of
        tolerances: relative energy errors that `predict` is asked for
        batch: problems answered at once
        weights: file of the network's weights; by default those that come with `parametric_poisson`
        out: folder for the table; nothing is written without it

    Returns:
        For each row "… l2", "… l2 max", "… max", "… energy", "… energy max", "… lowest" and "… highest" (certified over
        true), "… bound" and "… bound mean" (over true), "… cycles" and "… ms".
    """
    network = trained(weights)
    V, energy, _ = parts = problem(cells)
    inside, far = (Problems.made(parts, b, n, f, batch) for b, n, f in ((3.0, items, finer), (4.0, outside, 0)))
    line = 1 - V.dof_coordinates[:, 0]

    def asked(tol: float | None, max_cycles: int, images: Tensor, params: tuple[Parameter, ...]) -> tuple[Tensor, int]:
        found = predict(network, energy, images, params, tol, max_cycles=max_cycles)
        return found.value, int(found.cycles.max())

    def noisy(images: Tensor, params: tuple[Parameter, ...]) -> tuple[Tensor, int]:
        u = minimize(energy, params).value
        noise = torch.rand(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
        return energy.discrete_form(params).constrained(u + 1e-2 * noise)[1], 0

    answers: dict[str, Answer] = {"u = 1 − x": lambda images, params: (line.expand(len(images), -1), 0)}
    for k in snapshots:
        _, params = DiffusionProblems(V, ExponentialSeries(), seed=2)(0, k)
        basis = ReducedBasis.of_snapshots(energy, params)
        answers[f"reduced basis, {k} snapshots"] = lambda images, params, basis=basis: (basis(params), 0)
    answers["UNet"] = partial(asked, None, 0)
    answers["UNet + 1 cycle"] = partial(asked, 1e-14, 1)
    answers |= {f"predict to {tol:.0e}": partial(asked, tol, 200) for tol in tolerances}
    answers["minimiser + noise"] = noisy
    answers["minimiser, multigrid"] = lambda images, params: (minimize(energy, params).value, 0)
    figures, rows = {}, []
    cases = [(name, answer, inside) for name, answer in answers.items()]
    if outside:
        cases += [(f"{name}, [−4, 4]⁴", answers[name], far) for name in answers if name.startswith(("UNet", "predict"))]
    for name, answer, problems in cases:
        found = measured(problems, answer)
        print(f"{name}: {found['l2']:.1e}", flush=True)
        rows.append(row(name, found))
        figures |= {f"{name} {k}": x for k, x in found.items()}
    text = markdown(HEAD, rows)
    print(f"\n{text}")
    if out is not None:
        write(text, out, "surrogate_table.md")
    return figures


if __name__ == "__main__":
    run(main)
