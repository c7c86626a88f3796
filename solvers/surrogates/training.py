"""The loop behind `train_surrogate`: a Lightning module, its checkpoints and its progress bar.

Everything random about a step follows from its number, and the rest of the state is in the checkpoint: weights,
optimiser, schedule, PyTorch's random state. So a run that was killed goes on from its last checkpoint as if nothing had
happened. Checkpoints are written beside their place and moved there when complete.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from tqdm import tqdm

from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.space.space import FunctionSpace
from fem.support.compilation import compilation, current, gave_up
from fem.support.network_files import save_network, tensors
from fem.support.training import Numbers, Whole, quiet, stored_run
from solvers.minimization import minimize
from solvers.surrogates.lift import answer, evaluating, nodal_values
from solvers.surrogates.muon import Muon
from solvers.surrogates.problems import Problems
from solvers.surrogates.surrogate import Loss, MakeOptimizer, Training

WARM_UP = 100  # steps in which the step length rises


@dataclass(frozen=True, eq=False)
class Plan:
    """What is trained, and how: the arguments of `train_surrogate` of these names."""

    energy: Energy
    problems: Problems
    steps: int
    batch: int
    lr: float
    loss: Loss
    every: int
    clip: float
    optimizer: MakeOptimizer | None
    compile: bool

    @property
    def space(self) -> FunctionSpace:
        assert isinstance(self.energy.space, FunctionSpace)
        return self.energy.space

    def facts(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        loss = self.loss if isinstance(self.loss, str) else "a function"
        return {"steps": self.steps, "batch": self.batch, "lr": self.lr, "loss": loss, "every": self.every}


class Module(LightningModule):
    """One step: problems by their number, the network's answer, its energy."""

    def __init__(self, network: nn.Module, plan: Plan, held_out: tuple[Tensor, Sequence[Parameter]] | None):
        super().__init__()
        self.network, self.plan, self.held_out = network, plan, held_out
        self.call = (network,)  # in a tuple, lest a compiled one be stored as a second module
        self.history: list[dict[str, float]] = []
        self.random: dict[str, Tensor] = {}
        self.solution = None if held_out is None else minimize(plan.energy, held_out[1])

    def configure_optimizers(self) -> Any:
        make = self.plan.optimizer or (lambda named: Muon(named, self.plan.lr))
        optimizer, steps = make(self.network.named_parameters()), self.plan.steps

        def rate(k: int) -> float:
            return min((k + 1) / WARM_UP, 1) * 0.5 * (1 + cos(pi * min(k / steps, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        if "cpu" in self.random:
            torch.set_rng_state(self.random["cpu"].cpu())
        if "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"].cpu(), self.device)
        self.since = (time.perf_counter(), self.global_step)

    def training_step(self, batch: int, index: int) -> Tensor:
        share = self.plan.batch // self.trainer.world_size
        start = self.global_step * self.plan.batch + self.global_rank * share
        images, params = problems_of(self.plan.problems, start, share)
        energies = self.energies(images, params)
        loss = self.plan.loss
        value = loss(energies) if callable(loss) else (logarithm(energies) if loss == "log" else energies).mean()
        if value.device.type == "cpu" or index % 50 == 0:  # on a GPU looking means waiting
            self.check(value)
        self.log("loss", value.detach(), on_step=True)
        return value

    def energies(self, images: Tensor, params: Sequence[Parameter]) -> Tensor:
        V = self.plan.space
        image = answer(self.call[0], images)
        with torch.autocast(V.device.type, enabled=False):
            return self.plan.energy(nodal_values(V, image), *params)

    def check(self, value: Tensor, name: str = "loss") -> None:
        """Nothing but numbers is stored."""
        if not isfinite(float(value.detach())):
            raise ValueError(
                f"at step {self.global_step} the {name} is {float(value.detach())}: a smaller lr may help. What was "
                "stored before is as it was."
            )

    @torch.no_grad()
    def measure(self, loss: float) -> None:
        """What is known at the end of an interval."""
        (begin, first), now = self.since, time.perf_counter()
        found = {"step": self.global_step, "loss": loss}
        found["samples_per_second"] = (self.global_step - first) * self.plan.batch / max(now - begin, 1e-9)
        if self.held_out is not None and self.solution is not None:
            images, params = self.held_out
            V, energy, u = self.plan.space, self.plan.energy, self.solution.value
            with evaluating(self.network):
                image = answer(self.network, images)
            _, v = energy.discrete_form(params).constrained(nodal_values(V, image))
            distance = (v - u).flatten(1).norm(dim=-1) / u.flatten(1).norm(dim=-1)
            least = self.solution.energy
            gap = (energy(v, *params) - least) / least.abs()
            found |= {"l2": float(distance.mean()), "l2_max": float(distance.max()), "energy_gap": float(gap.mean())}
        self.history.append(found)
        for logger in self.trainer.loggers:
            logger.log_metrics({k: v for k, v in found.items() if k not in ("step", "loss")}, self.global_step)
        self.since = (time.perf_counter(), self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["state_dict"] = tensors(self)
        checkpoint["ritz"] = {"facts": self.plan.facts(), "random": random, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.random, self.history = checkpoint["ritz"]["random"], checkpoint["ritz"]["history"]


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


class Interval(Callback):
    """At the end of each interval all is measured and stored, in the place of the checkpoint before."""

    def __init__(self, path: Path | None):
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, plan = trainer.global_step, pl_module.plan
        if step % plan.every == 0 or step == plan.steps:
            pl_module.check(outputs["loss"])
            pl_module.check(sum(p.detach().abs().sum() for p in pl_module.parameters()), "sum of all weights")
            pl_module.measure(float(outputs["loss"]))
            if self.path is not None:
                trainer.save_checkpoint(self.path)


class Bar(Callback):
    """One bar for the whole run, with loss, held-out error and samples per second."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
            mininterval=0.5,
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step % 20 == 0 or step == trainer.max_steps:
            last = pl_module.history[-1] if pl_module.history else {}
            (begin, first), now = pl_module.since, time.perf_counter()
            shown = {"loss": f"{float(outputs['loss']):.4f}"} | {
                k: f"{last[k]:.2e}" for k in ("l2", "l2_max") if k in last
            }
            rate = (step - first) * pl_module.plan.batch / max(now - begin, 1e-9)
            rate = rate if step > first else last["samples_per_second"]  # just measured
            self.bar.set_postfix(shown | {"samples/s": f"{rate:.0f}"}, refresh=False)
            self.bar.update(step - self.bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


def run(
    network: nn.Module,
    plan: Plan,
    held_out: tuple[Tensor, Sequence[Parameter]] | None,
    folder: Path | None,
    resume: bool,
    precision: str,
    devices: int,
    progress: bool,
    options: dict[str, Any],
) -> Training:
    """`train_surrogate` with its arguments checked."""
    begin, device = time.perf_counter(), plan.energy.space.device
    stored = None if folder is None else stored_run(folder / "last.ckpt", network, plan.facts(), resume)
    callbacks: list[Callback] = [Interval(None if folder is None else folder / "last.ckpt")]
    if progress:
        callbacks.append(Bar())
    callbacks += options.pop("callbacks", [])
    resting = not network.training
    if resting:
        network.train()  # where it trains as a whole, parts of it may rest
    # Work that comes back is compiled from the first step on: resumed or not, its sums are the same to the last digit.
    with quiet(), compilation("always" if current.when == "auto" else current.when):
        module = Module(network.to(device), plan, held_out)
        if plan.compile:
            module.call = (compiled(network, plan),)
        trainer = Trainer(
            **{
                "accelerator": "gpu" if device.type == "cuda" else device.type,
                "devices": [device.index or 0] if device.type == "cuda" and devices == 1 else devices,
                "strategy": "ddp" if devices > 1 else "auto",
                "max_steps": plan.steps,
                "max_epochs": -1,
                "precision": precision,
                "gradient_clip_val": plan.clip,
                "logger": loggers(folder) if folder is not None else False,
                "log_every_n_steps": min(50, plan.every),
                "callbacks": callbacks,
                "plugins": [Whole()],
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                **options,
            }
        )
        try:
            trainer.fit(module, train_dataloaders=Numbers(), ckpt_path=stored)
        finally:
            network.to(device)  # Lightning leaves it on the CPU
            if resting:
                network.eval()
    if folder is not None and trainer.is_global_zero:
        save_network(network, folder / "network.safetensors")
    steps = trainer.global_step
    return Training(network, steps, steps * plan.batch, time.perf_counter() - begin, module.history)


def loggers(folder: Path) -> list[Any]:
    found: list[Any] = [CSVLogger(folder, "logs", flush_logs_every_n_steps=50)]
    if find_spec("tensorboard"):
        found.append(TensorBoardLogger(folder, "logs", version=found[0].version))
    return found


def compiled(network: nn.Module, plan: Plan) -> Any:
    """The network through `torch.compile`; as it is, with one warning, where that does not work."""
    try:
        fast = torch.compile(network)
        images, _ = plan.problems(0, 1)
        answer(fast, images).sum().backward()
    except Exception as error:  # PyTorch has many kinds
        gave_up(error)
        return network
    finally:
        network.zero_grad()
    return fast
