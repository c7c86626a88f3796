"""What is trained, how, and what came of it: the words that the loop and the callers of a training share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fem.support.checks import check_integers, check_numbers

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
WARM_UP = 100  # steps in which the step length rises


@dataclass(frozen=True, eq=False)
class Training:
    """How a training went.

    network: the trained one, the same object that was given.
    steps, samples: done in all, by earlier processes too.
    seconds: of this process.
    history: what was known at the end of each interval: "step", "loss" (the mean over the interval), "seconds" of
        training so far, "samples_per_second", and what was measured on held-out data.
    """

    network: nn.Module = field(repr=False)
    steps: int
    samples: int
    seconds: float
    history: list[dict[str, float]] = field(repr=False)


class Task(ABC):
    """What a network is trained on. Everything about a batch follows from its number: there is no state to store."""

    @property
    def device(self) -> torch.device | None:
        """Where training runs, if the task knows; else where the network is."""
        return None

    def facts(self) -> dict[str, Any]:
        """What must be the same, beside the plan's, for a run to go on."""
        return {}

    @abstractmethod
    def draw(self, number: int, batch: int, part: slice) -> Any:
        """The items `part` of batch number 0, 1, …, of `batch` items in all: always the same."""

    @abstractmethod
    def loss(self, network: nn.Module, items: Any, step: int) -> tuple[Tensor, Tensor]:
        """What is minimised, and what is shown as "loss": numbers, of which the first has a gradient."""

    @abstractmethod
    def measure(self, network: nn.Module, held_out: Any) -> dict[str, float]:
        """Figures of a network, in evaluation, on held-out data."""

    def optimizer(self, parameters: Iterable[tuple[str, nn.Parameter]], lr: float) -> Optimizer:
        return torch.optim.Adam([p for _, p in parameters], lr)

    def warm_up_steps(self, steps: int) -> int:
        """For how many of the steps the step length rises."""
        return min(WARM_UP, steps // 10 + 1)


def mean_over_processes(value: Tensor) -> Tensor:
    """Of a tensor that each process of a training has; it carries no gradient."""
    value = value.detach().clone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value


@dataclass(frozen=True, eq=False)
class Plan:
    """How a network is trained: the arguments that all trainings have in common.

    Args:
        call: the training's name, for errors.

    Raises:
        ValueError: numbers out of range.
    """

    call: str
    steps: int
    batch: int
    lr: float
    held_out: Any
    every: int
    folder: str | Path | None
    resume: bool
    clip: float
    precision: str
    devices: int
    optimizer: MakeOptimizer | None
    progress: bool
    trainer: Any

    def __post_init__(self) -> None:
        check_integers(self.call, steps=self.steps, batch=self.batch, every=self.every, devices=self.devices)
        check_numbers(self.call, "non-negative", lr=self.lr, clip=self.clip)

    @property
    def path(self) -> Path | None:
        """Of the checkpoint."""
        return None if self.folder is None else Path(self.folder) / "last.ckpt"

    def facts(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {name: getattr(self, name) for name in ("steps", "batch", "lr", "every", "clip")}

    def rate(self, step: int, warm_up: int) -> float:
        """Of the step length: a rise in a straight line, and a cosine that falls to zero at the last step."""
        return min((step + 1) / warm_up, 1) * 0.5 * (1 + cos(pi * min(step / self.steps, 1)))
