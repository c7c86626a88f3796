"""What all trainings with Lightning share: steps that know their number, checkpoints that are whole or not there, and
the way back into a run from its last one.

Lightning is an extra (`train`): nothing imports this file but the loops behind a `train_…`.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from fem.files import put
from fem.weights import load_state


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
