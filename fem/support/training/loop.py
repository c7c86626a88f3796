"""The loop of a training: a task and a plan as Lightning's module, loaders, callbacks and loggers."""

import logging
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from fem.support.checks import check_kind
from fem.support.training.checkpoints import read, stored_run, write
from fem.support.training.network_files import safetensors, save_network, tensors
from fem.support.training.plan import Plan, Task, Training, mean_over_processes

try:
    from lightning.fabric.utilities.warnings import PossibleUserWarning
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(f"training needs {error.name}: pip install 'ritz[train]'.", name=error.name) from error

LOOK = 50  # steps after which the loss is looked at on a GPU, where looking means waiting, and logged


class Batch:
    """What a task drew. Loaders and Lightning do not see through it: it stays where, and as precise as, it is."""

    def __init__(self, items: Any):
        self.items = items


class Drawn(IterableDataset):
    """The batches of an interval, drawn by number when they are asked for; each process draws its share."""

    def __init__(self, task: Task, batch: int, length: int, trainer: Trainer):
        self.task, self.batch, self.length, self.trainer = task, batch, length, trainer

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        share = self.batch // self.trainer.world_size
        part = slice(self.trainer.global_rank * share, (self.trainer.global_rank + 1) * share)
        while True:
            yield Batch(self.task.draw(self.trainer.fit_loop.total_batch_idx + 1, self.batch, part))


class TrainedNetwork(LightningModule):
    """A network with its task and plan, what is known of it, and what a checkpoint holds beside Lightning's own."""

    def __init__(self, network: nn.Module, task: Task, plan: Plan, facts: dict[str, Any]):
        super().__init__()
        self.network, self.task, self.plan, self.facts = network, task, plan, facts
        self.history: list[dict[str, float]] = []
        self.losses: list[Tensor] = []
        self.measured: dict[str, float] = {}
        self.random: dict[str, Tensor] = {}
        self.seconds, self.begin = 0.0, time.perf_counter()

    def configure_optimizers(self) -> Any:
        task, plan = self.task, self.plan
        make = plan.optimizer or (lambda named: task.optimizer(named, plan.lr))
        optimizer, warm_up = make(self.network.named_parameters()), task.warm_up_steps(plan.steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: plan.rate(k, warm_up))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def set_intervals(self, done: int, step: int) -> None:
        """How many there will be, after so many that are done: as many as the remaining steps need."""
        self.trainer.fit_loop.max_epochs = done + ceil((self.plan.steps - step) / self.plan.every)

    def on_train_start(self) -> None:
        if "cpu" in self.random:
            torch.set_rng_state(self.random["cpu"].cpu())
        if "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"].cpu(), self.device)
        self.seconds, self.measured = self.history[-1]["seconds"] if self.history else 0.0, {}

    def on_train_epoch_start(self) -> None:
        self.begin = time.perf_counter()  # measuring and storing are no training

    def training_step(self, batch: Batch, index: int) -> Tensor:
        value, shown = self.task.loss(self.network, batch.items, self.global_step)
        if value.device.type == "cpu" or index % LOOK == 0:
            self.check(value, "loss")
        self.losses.append(shown.detach())
        self.log("loss", self.losses[-1], batch_size=1)
        return value

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.global_step == self.plan.steps:
            self.trainer.should_stop = True  # in the middle of an interval, perhaps, which is measured all the same
        if self.trainer.should_stop or self.trainer.is_last_batch:
            self.check_weights()

    def on_validation_start(self) -> None:
        self.lap()

    def validation_step(self, batch: Batch, index: int) -> None:
        # As precise as the network and its task are; and nothing that may be kept knows Lightning's inference mode.
        with torch.autocast(self.device.type, enabled=False), torch.inference_mode(False), torch.no_grad():
            self.measured = self.task.measure(self.network, batch.items)
        self.log_dict(self.measured, batch_size=1)

    def on_validation_end(self) -> None:
        self.begin = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        before, count = self.history[-1]["seconds"] if self.history else 0.0, len(self.losses)
        self.lap()
        loss = mean_over_processes(torch.stack(self.losses).mean())
        self.check(loss, "loss")
        rate = count * self.plan.batch / max(self.seconds - before, 1e-9)
        known = {"step": self.global_step, "loss": float(loss), "seconds": self.seconds, "samples_per_second": rate}
        self.history.append(known | self.measured)
        self.log("loss", loss, logger=False)  # loggers have that of single steps
        self.log("samples_per_second", rate)
        self.losses, self.measured = [], {}
        self.set_intervals(self.current_epoch + 1, self.global_step)  # steps were fewer where a callback cut it short

    def lap(self) -> None:
        now = time.perf_counter()
        self.seconds, self.begin = self.seconds + now - self.begin, now

    def check(self, value: Tensor, name: str) -> None:
        if not isfinite(found := float(value.detach())):
            raise ValueError(
                f"at step {self.global_step} the {name} is {found}: a smaller lr may help. Nothing but finite numbers "
                "is stored; what was stored before is as it was."
            )

    def check_weights(self) -> None:
        self.check(torch.stack([p.detach().abs().sum() for p in self.network.parameters()]).sum(), "sum of all weights")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_weights()
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["state_dict"] = tensors(self)
        checkpoint["ritz"] = {"facts": self.facts, "random": random, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.random, self.history = checkpoint["ritz"]["random"], checkpoint["ritz"]["history"]
        self.set_intervals(checkpoint["epoch"] + 1, checkpoint["global_step"])


class Whole(TorchCheckpointIO):
    """Files of checkpoints that are whole or not there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return read(path, map_location)


class Last(ModelCheckpoint):
    """The state at the end of the last interval, in the place of the one before; beside what others may keep."""

    def __init__(self, path: Path):
        super().__init__(path.parent, path.stem, enable_version_counter=False, save_on_train_epoch_end=True)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Bar(ProgressBar):
    """One bar for the whole run, with the loss, what was measured last and samples per second."""

    bar = tqdm(disable=True)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        total, off = pl_module.plan.steps, not trainer.is_global_zero
        self.bar = tqdm(total=total, initial=trainer.global_step, unit="step", disable=off, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step % 20 == 0 or step == pl_module.plan.steps:
            known = pl_module.history[-1] if pl_module.history else {}
            hidden = ("step", "loss", "seconds", "samples_per_second")
            measured = {name: f"{value:.3g}" for name, value in known.items() if name not in hidden}
            rate = len(pl_module.losses) * pl_module.plan.batch / max(time.perf_counter() - pl_module.begin, 1e-9)
            shown = {"loss": f"{float(pl_module.losses[-1]):.4g}", **measured, "samples/s": f"{rate:.0f}"}
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(step - self.bar.n)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.bar.close()


def train(network: nn.Module, task: Task, plan: Plan) -> Training:
    """Train a network in place, by one process or several; it returns to its device and mode."""
    check_kind(plan.call, "network", network, nn.Module, "a network, an `nn.Module`")
    begin, device = time.perf_counter(), task.device or next(network.parameters()).device
    resting, interrupt = not network.training, signal.getsignal(signal.SIGINT)
    if plan.path is not None:
        safetensors()  # is needed in the end: better missing now
    with quiet():
        trainer = made(plan, device, [] if plan.path is None else [Last(plan.path)])
        check(trainer, task, plan)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = Whole()
        accumulated = trainer.accumulate_grad_batches
        facts = plan.facts() | {"accumulate_grad_batches": accumulated} | task.facts()
        stored = None if plan.path is None else stored_run(plan.path, network, facts, plan.resume)
        module = TrainedNetwork(network.to(device), task, plan, facts)
        drawn = loader(Drawn(task, plan.batch, plan.every * accumulated, trainer))
        held_out = None if plan.held_out is None else loader([Batch(plan.held_out)])
        if resting:
            network.train()  # where it trains as a whole, parts of it may rest
        try:
            trainer.fit(module, drawn, held_out, ckpt_path=stored)
        finally:
            network.to(device)  # Lightning leaves it on the CPU
            if resting:
                network.eval()
            if signal.getsignal(signal.SIGINT) is not interrupt:
                signal.signal(signal.SIGINT, interrupt)  # Lightning ignores every Ctrl-C after the first
    if plan.path is not None and trainer.is_global_zero:
        save_network(network, plan.path.with_name("network.safetensors"))
    samples = (trainer.fit_loop.total_batch_idx + 1) * plan.batch
    return Training(network, trainer.global_step, samples, time.perf_counter() - begin, module.history)


def check(trainer: Trainer, task: Task, plan: Plan) -> None:
    """A `ValueError` unless the processes can share a batch, and compute where the task is."""
    if plan.batch % trainer.world_size:
        raise ValueError(
            f"{trainer.world_size} processes cannot share a batch of {plan.batch} evenly; make it a multiple."
        )
    here, there = task.device, trainer.strategy.root_device
    if here is not None and here.type != there.type:
        raise ValueError(f"`{plan.call}(trainer=...)` computes on {there}, while what it is trained on is on {here}.")


def loader(data: Any) -> DataLoader:
    """A generator of its own, lest it draw its seed from the state that networks draw from."""
    return DataLoader(data, batch_size=None, generator=torch.Generator())


def made(plan: Plan, device: torch.device, last: list[Callback]) -> Trainer:
    """The plan's trainer, or one that is made of its options, with callbacks of our own."""
    given = plan.trainer
    if isinstance(given, Trainer):
        if (plan.precision, plan.devices) != ("32-true", 1):
            raise ValueError(
                f"`{plan.call}(trainer=...)` is a `Trainer`, which has `precision` and `devices` of its own; say them "
                "there, or give a dict of options in its place."
            )
        if given.global_step:
            raise ValueError(f"`{plan.call}(trainer=...)` has taken {given.global_step} steps already; make another.")
        given.fit_loop.epoch_loop.max_steps, given.fit_loop.max_epochs = -1, ceil(plan.steps / plan.every)
        if given.gradient_clip_val is None:
            given.gradient_clip_val = plan.clip
        given.callbacks += last  # pyright: ignore[reportAttributeAccessIssue]
        return given
    if not isinstance(given, Mapping | None):
        raise TypeError(f"`{plan.call}(trainer=...)` must be a dict of options or a `Trainer`; got {given!r}.")
    options = dict(given or {})
    if own := {"max_steps", "max_epochs"} & set(options):
        raise ValueError(f"`{plan.call}(steps=...)` says how long to train; leave {own.pop()} out of the options.")
    callbacks = options.pop("callbacks", None) or []
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    if plan.progress and not any(isinstance(c, ProgressBar) for c in callbacks):
        callbacks.insert(0, Bar())
    callbacks += last
    gpu = device.type == "cuda"
    return Trainer(
        **{
            "accelerator": "gpu" if gpu else device.type,
            "devices": [device.index or 0] if gpu and plan.devices == 1 else plan.devices,
            "max_epochs": ceil(plan.steps / plan.every),
            "precision": plan.precision,
            "gradient_clip_val": plan.clip,
            "logger": loggers(plan.path.parent) if plan.path else False,
            "log_every_n_steps": min(LOOK, plan.every),
            "num_sanity_val_steps": 0,
            "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
            "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
            "enable_model_summary": False,
            "default_root_dir": plan.folder,
            "use_distributed_sampler": False,
            **options,
            "callbacks": callbacks,
        }
    )


def loggers(folder: Path) -> list[Any]:
    """Figures as CSV, and for TensorBoard where it is installed."""
    found: list[Any] = [CSVLogger(folder, "logs", flush_logs_every_n_steps=LOOK)]
    if find_spec("tensorboard"):
        found.append(TensorBoardLogger(folder, "logs", version=found[0].version))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's announcements, and its advice on what is meant as it is."""
    names = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)  # workers, parts that rest
            warnings.filterwarnings("ignore", ".*`IterableDataset` has `__len__`.*")
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # of Lightning's own making
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
