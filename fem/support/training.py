"""What all trainings with Lightning share: steps that know their number, checkpoints that are whole or not there, and
the way back into a run from its last one.

Lightning is an extra (`train`): nothing imports this file but the loops behind a `train_…`.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from tqdm import tqdm

from fem.support.files import put
from fem.support.network_files import load_state


class Numbers:
    """An endless loader of nothing: a step knows its number, so there is no state to store."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Whole(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and hold nothing but tensors and numbers."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        put(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location=map_location, weights_only=True)


def stored_run(path: Path, network: nn.Module, facts: Mapping[str, Any], resume: bool) -> Path | None:
    """The checkpoint to go on from, once it is known to belong to this run; None where there is none yet.

    A checkpoint holds the run's facts (what must be the same to go on) in ["ritz"]["facts"] and the weights of the
    module's `network`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for half in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        half.unlink()  # of a process that was killed while it wrote
    if not path.exists():
        return None
    if not resume:
        raise ValueError(f"{path.parent} holds a run already; name another folder, or resume it.")
    try:
        checkpoint = Whole().load_checkpoint(path)
        stored, weights = checkpoint["ritz"]["facts"], checkpoint["state_dict"]
    except Exception as error:  # what a damaged or foreign file leads to has many names
        raise ValueError(
            f"{path} is damaged, or no checkpoint of a training ({type(error).__name__}); it was left as it is. Move "
            "it away to start anew."
        ) from error
    differing = [f"{k}={stored.get(k)!r} there, {v!r} here" for k, v in facts.items() if stored.get(k) != v]
    if differing:
        raise ValueError(f"{path} is of another run: {', '.join(differing)}. Name another folder.")
    load_state(network, {k.removeprefix("network."): v for k, v in weights.items()}, path, check_only=True)
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's announcements."""
    names = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # parts may rest
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # of Lightning's own making
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class IntervalModule(LightningModule):
    """A network that is measured and stored at the end of each interval.

    Subclasses have `training_step`, which appends to `losses`, and `measured`, what is known of held-out data. The plan
    has `steps`, `every` and `facts()`.
    """

    def __init__(self, network: nn.Module, plan: Any, path: Path | None, bar: tqdm):
        super().__init__()
        self.network, self.plan, self.path, self.bar = network, plan, path, bar
        self.history: list[dict[str, float]] = []
        self.losses: list[Tensor] = []

    def measured(self) -> dict[str, float]:
        return {}

    def on_train_start(self) -> None:
        self.bar.update(self.global_step)
        self.begin = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        self.bar.update()
        if self.global_step % self.plan.every and self.global_step < self.plan.steps:
            return
        self.history.append(self.figures())
        shown = {k: f"{v:.3g}" for k, v in self.history[-1].items() if k not in ("step", "seconds")}
        self.bar.set_postfix(shown)
        for logger in self.trainer.loggers:
            logger.log_metrics(self.history[-1], self.global_step)
        if self.path is not None:
            self.trainer.save_checkpoint(self.path)
        self.begin = time.perf_counter()  # measuring is no training

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """What is known at the end of an interval; nothing but numbers is stored."""
        seconds = time.perf_counter() - self.begin + (self.history[-1]["seconds"] if self.history else 0.0)
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not isfinite(loss) or not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            raise ValueError(
                f"by step {self.global_step} the loss is {loss} or weights are not finite: a smaller lr may help. What "
                "was stored before is as it was."
            )
        return {"step": self.global_step, "loss": loss, "seconds": seconds, **self.measured()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ritz"] = {"facts": self.plan.facts(), "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["ritz"]["history"]


def fit(
    make: Callable[[Path | None, tqdm], IntervalModule],
    network: nn.Module,
    plan: Any,
    folder: Path | None,
    resume: bool,
    progress: bool,
    options: Mapping[str, Any],
) -> tuple[IntervalModule, int]:
    """Train the module that `make` returns for a checkpoint's path and a bar; and the number of steps it has taken.

    Args:
        options: of Lightning's `Trainer`.
    """
    device, training = next(network.parameters()).device, network.training
    path = None if folder is None else folder / "last.ckpt"
    stored = None if path is None else stored_run(path, network, plan.facts(), resume)
    network.train()
    with quiet(), tqdm(total=plan.steps, disable=not progress, dynamic_ncols=True) as bar:
        module = make(path, bar)
        trainer = Trainer(
            **{
                "accelerator": "gpu" if device.type == "cuda" else device.type,
                "devices": [device.index or 0] if device.type == "cuda" else 1,
                "max_steps": plan.steps,
                "max_epochs": -1,
                "logger": False if folder is None else CSVLogger(folder, "logs", flush_logs_every_n_steps=1),
                "plugins": [Whole()],
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **options,
            }
        )
        try:
            trainer.fit(module, train_dataloaders=Numbers(), ckpt_path=stored)
        finally:
            network.to(device).train(training)  # Lightning leaves it on the CPU
    return module, trainer.global_step
