"""Training a network to minimise an energy for a whole family of problems: the energy is the loss, no data needed.

    θ ↦ mean over problems p of ℓ(J(v_θ(p); p)),    v_θ(p) = `dirichlet.apply(V.from_grid(network(image of p)))`

Each step draws new problems, by their number. As J(v) − J(u) = ½‖v − u‖² in the energy norm for quadratic energies, the
loss knows how far every prediction is from its solution, up to a constant. With ℓ(J) = sign(J) log |J| all problems
count alike however much their energies differ. This has been tried against regression on a multigrid cycle of the
network's own output, against the preconditioned residual √(rᵀBr), and against coarser grids first: in equal time none
came as far.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.space.space import FunctionSpace
from fem.support import training
from fem.support.checks import check_callable, check_kind
from fem.support.compilation import compilation, current, gave_up
from fem.support.training.plan import MakeOptimizer, Plan, Task, Training
from solvers.minimization import minimize
from solvers.surrogates.lift import answer, nodal_values
from solvers.surrogates.muon import Muon
from solvers.surrogates.problems import Problems

Loss = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class EnergyTask(Task):
    """Problems by their number, a network's answers to them, the energies of these.

    network: in the place of the one that is trained, a compiled one with the same weights.
    """

    energy: Energy
    problems: Problems
    objective: Loss
    network: Callable[[Tensor], Tensor] | None = None

    @property
    def space(self) -> FunctionSpace:
        assert isinstance(self.energy.space, FunctionSpace)
        return self.energy.space

    @property
    def device(self) -> torch.device:
        return self.space.device

    def facts(self) -> dict[str, Any]:
        return {"loss": self.objective if isinstance(self.objective, str) else "a function"}

    def draw(self, number: int, batch: int, part: slice) -> tuple[Tensor, Sequence[Parameter]]:
        return problems_of(self.problems, number * batch + part.start, part.stop - part.start)

    def loss(self, network: nn.Module, items: tuple[Tensor, Sequence[Parameter]], step: int) -> tuple[Tensor, Tensor]:
        images, params = items
        image = answer(network if self.network is None else self.network, images)
        with torch.autocast(self.device.type, enabled=False):
            energies = self.energy(nodal_values(self.space, image), *params)
        if callable(self.objective):
            value = self.objective(energies)
        else:
            value = (logarithm(energies) if self.objective == "log" else energies).mean()
        return value, value

    def measure(self, network: nn.Module, held_out: Any) -> dict[str, float]:
        """Against the minimisers u of the energies: relative distances of nodal values, and of energies."""
        images, params, solution = held_out
        values = nodal_values(self.space, answer(network, images))
        u, (_, v) = solution.value, self.energy.discrete_form(params).constrained(values)
        distance = (v - u).flatten(1).norm(dim=-1) / u.flatten(1).norm(dim=-1)
        gap = (self.energy(v, *params) - solution.energy) / solution.energy.abs()
        return {"l2": float(distance.mean()), "l2_max": float(distance.max()), "energy_gap": float(gap.mean())}

    def optimizer(self, parameters: Iterable[tuple[str, nn.Parameter]], lr: float) -> Optimizer:
        return Muon(parameters, lr)

    def warm_up_steps(self, steps: int) -> int:
        return 100


def train_surrogate(
    network: nn.Module,
    energy: Energy,
    problems: Problems,
    steps: int,
    batch: int = 16,
    *,
    lr: float = 1e-2,
    loss: Loss = "log",
    held_out: tuple[Tensor, Sequence[Parameter]] | None = None,
    every: int = 200,
    folder: str | Path | None = None,
    resume: bool = True,
    clip: float = 1.0,
    precision: str = "32-true",
    devices: int = 1,
    optimizer: MakeOptimizer | None = None,
    compile: bool = False,
    progress: bool = True,
    trainer: Any = None,
) -> Training:
    """Minimise the mean energy of a network's predictions.

    Args:
        network: from images "b c *grid" to nodal values as images "b 1 *grid" (or "b *grid"; "b c *grid" for vectors).
        energy: over a Lagrange space on a grid, on the device where training runs; in single precision it costs half.
        problems: gives (images, parameters of the energy) by number: `DiffusionProblems`, or any such callable.
        steps: of the optimiser; the step length rises for the first hundred and falls to zero as a cosine.
        batch: problems per step, over all processes together.
        lr: of `Muon`, which trains the network unless `optimizer` says otherwise.
        loss: "log", the mean of sign(J) log |J|; "mean", of J; or a function of the energies "b".
        held_out: (images, parameters) of problems to measure on; their solutions are computed once, by `minimize`. The
            history gets "l2" and "l2_max", mean and maximum of ‖v − u‖ / ‖u‖ over nodes, and "energy_gap", the mean of
            (J(v) − J(u)) / |J(u)|.
        every: so many steps make an interval, at whose end all is measured, logged and stored.
        folder: for the checkpoint `last.ckpt`, logs as CSV and for TensorBoard where installed, and in the end the
            network, `network.safetensors`; without one nothing is written.
        resume: continue from the folder's checkpoint, bit for bit as if there had been no break (on CPUs, with as many
            threads). Without `resume` a folder that holds a run is refused.
        clip: norm to which gradients are cut; 0 for none.
        precision: Lightning's, such as "bf16-mixed" for convolutions in half precision; energies stay as precise as
            their space.
        devices: processes on this machine; each takes its share of the batch. With several GPUs the space of each
            process belongs on `f"cuda:{os.environ.get('LOCAL_RANK', 0)}"`.
        optimizer: makes one from the network's named parameters; their rates are then those of the first step.
        compile: the network, by `torch.compile`, where a compiler is installed.
        progress: a bar with loss, held-out error and samples per second.
        trainer: more options for `lightning.pytorch.Trainer`, as a dict: callbacks such as `EarlyStopping` and
            `ModelCheckpoint(monitor="l2")`, `accumulate_grad_batches`, …; or a `Trainer`, which keeps its own logs and
            progress bar, and takes `steps` and `every` from here.

    Raises:
        ImportError: Lightning is not installed.
        ValueError: bad arguments; a folder that holds another run or a damaged checkpoint, which is left as it is;
            energies that are not finite.
    """
    check_kind("train_surrogate", "energy", energy, Energy, "an `Energy`")
    check_callable("train_surrogate", "problems", problems, "a callable of (start, count), such as `DiffusionProblems`")
    if not isinstance(energy.space, FunctionSpace):
        raise ValueError("`train_surrogate` takes an energy over one `FunctionSpace`.")
    if not callable(loss) and loss not in ("log", "mean"):
        raise ValueError(f'`train_surrogate(loss=...)` must be "log", "mean" or a function; got {loss!r}.')
    shared = (held_out, every, folder, resume, clip, precision, devices, optimizer, progress, trainer)
    plan = Plan("train_surrogate", steps, batch, lr, *shared)
    # Work that comes back is compiled from the first step on: resumed or not, its sums are the same to the last digit.
    with compilation("always" if current.when == "auto" else current.when):
        if held_out is not None:
            plan = replace(plan, held_out=(*held_out, minimize(energy, held_out[1])))
        task = EnergyTask(energy, problems, loss)
        if compile:
            task = replace(task, network=compiled(network.to(task.device), task))
        return training.train(network, task, plan)


def logarithm(energies: Tensor) -> Tensor:
    """sign(J) log |J|: by its derivative, that of J over |J|, problems count alike however large their energies are."""
    size = energies.detach().abs().clamp(min=1e-12)
    relative = energies / size
    return relative - relative.detach() + energies.detach().sign() * size.log()


def problems_of(problems: Problems, start: int, count: int) -> tuple[Tensor, Sequence[Parameter]]:
    """What `problems` gives, once it is known to be what was asked for."""
    found = problems(start, count)
    got = f"{len(found)} things" if isinstance(found, tuple) else type(found).__name__
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor):
        if len(found[0]) == count:
            return found
        got = f"{len(found[0])} images"
    raise ValueError(f"`problems({start}, {count})` must return ({count} images, parameters); got {got}.")


def compiled(network: nn.Module, task: EnergyTask) -> Callable[[Tensor], Tensor]:
    """The network through `torch.compile`; as it is, with one warning, where that does not work."""
    try:
        fast = torch.compile(network)
        images, _ = task.draw(0, 1, slice(0, 1))
        answer(fast, images).sum().backward()
    except Exception as error:  # PyTorch has many kinds
        gave_up(error)
        return network
    finally:
        network.zero_grad()
    return fast
