"""Training a network to minimise an energy for a whole family of problems: the energy is the loss, no data needed.

    θ ↦ mean over problems p of ℓ(J(v_θ(p); p)),    v_θ(p) = `dirichlet.apply(V.from_grid(network(image of p)))`

Each step draws new problems, by their number. As J(v) − J(u) = ½‖v − u‖² in the energy norm for quadratic energies, the
loss knows how far every prediction is from its solution, up to a constant. With ℓ(J) = sign(J) log |J| all problems
count alike however much their energies differ. This has been tried against regression on a multigrid cycle of the
network's own output, against the preconditioned residual √(rᵀBr), and against coarser grids first: in equal time none
came as far.

Lightning (the extra `train`) runs the loop: one process or several, mixed precision, logs;
`solvers/surrogates/training.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.space.space import FunctionSpace
from solvers.surrogates.problems import Problems

Loss = str | Callable[[Tensor], Tensor]
MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]


@dataclass(frozen=True, eq=False)
class Training:
    """How a training went.

    network: the trained one, the same object that was given.
    steps, samples: done in all, by earlier processes too.
    seconds: of this process.
    history: what was measured every so many steps: "step", "loss", "samples_per_second", and with held-out problems
        "l2" and "l2_max", mean and maximum of ‖v − u‖ / ‖u‖ over nodes, and "energy_gap", the mean of
        (J(v) − J(u)) / |J(u)|.
    """

    network: nn.Module
    steps: int
    samples: int
    seconds: float
    history: list[dict[str, float]]


def train_surrogate(
    network: nn.Module,
    energy: Energy,
    problems: Problems,
    steps: int,
    batch: int = 16,
    lr: float = 1e-2,
    loss: Loss = "log",
    held_out: tuple[Tensor, Sequence[Parameter]] | None = None,
    every: int = 500,
    folder: str | Path | None = None,
    resume: bool = True,
    precision: str = "32-true",
    compile: bool = False,
    devices: int = 1,
    optimizer: MakeOptimizer | None = None,
    clip: float = 1.0,
    progress: bool = True,
    trainer: dict[str, Any] | None = None,
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
        held_out: (images, parameters) of problems to measure on; their solutions are computed once, by `minimize`.
        every: so many steps make an interval, at whose end all is measured, logged and stored.
        folder: for the checkpoint `last.ckpt`, logs as CSV and for TensorBoard where installed, and in the end the
            network, `network.safetensors`; without one nothing is written.
        resume: continue from the folder's checkpoint, bit for bit as if there had been no break (on CPUs, with as many
            threads). Without `resume` a folder that holds a run is refused.
        precision: Lightning's, such as "bf16-mixed" for convolutions in half precision; energies stay as precise as
            their space.
        compile: the network, by `torch.compile`, where a compiler is installed.
        devices: processes on this machine; each takes its share of the batch. With several GPUs the space of each
            process belongs on `f"cuda:{os.environ.get('LOCAL_RANK', 0)}"`.
        optimizer: makes one from the network's named parameters; their rates are then those of the first step.
        clip: norm to which gradients are cut.
        progress: a bar with loss, held-out error and samples per second.
        trainer: more options for `lightning.pytorch.Trainer`.

    Raises:
        ImportError: Lightning is not installed.
        ValueError: bad arguments; a folder that holds another run or a damaged checkpoint, which is left as it is;
            energies that are not finite.
    """
    V = energy.space
    if not isinstance(V, FunctionSpace):
        raise ValueError("`train_surrogate` takes an energy over one `FunctionSpace`.")
    for name, value in {"steps": steps, "batch": batch, "every": every, "devices": devices}.items():
        if value < 1:
            raise ValueError(f"`train_surrogate({name}=...)` must be positive; got {value!r}.")
    if batch % devices:
        raise ValueError(f"{devices} processes cannot share a batch of {batch} evenly; make it a multiple.")
    if not callable(loss) and loss not in ("log", "mean"):
        raise ValueError(f'`train_surrogate(loss=...)` must be "log", "mean" or a function; got {loss!r}.')
    try:
        from solvers.surrogates.training import Plan, run
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("lightning", "safetensors"):
            raise
        raise ImportError(f"training needs {error.name}: pip install 'ritz[train]'.", name=error.name) from error
    plan = Plan(energy, problems, steps, batch, lr, loss, every, clip, optimizer, compile)
    place = None if folder is None else Path(folder)
    return run(network, plan, held_out, place, resume, precision, devices, progress, dict(trainer or {}))
