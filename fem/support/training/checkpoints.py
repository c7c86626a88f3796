"""Checkpoints of trainings: whole or not there, of nothing but tensors and numbers, and known to belong to a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fem.support.files import put
from fem.support.training.network_files import load_state


def write(checkpoint: dict[str, Any], path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    put(Path(path), lambda temporary: torch.save(checkpoint, temporary))


def read(path: str | Path, device: Any = "cpu") -> dict[str, Any]:
    return torch.load(path, map_location=device, weights_only=True)


def stored_run(path: Path, network: nn.Module, facts: Mapping[str, Any], resume: bool) -> Path | None:
    """The checkpoint to go on from, once it is known to belong to this run; None where there is none yet.

    A checkpoint holds the run's facts (what must be the same to go on) in ["ritz"]["facts"] and the weights of the
    module's `network`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for half in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        half.unlink(missing_ok=True)  # of a process that was killed while it wrote
    if not path.exists():
        return None
    if not resume:
        raise ValueError(f"{path.parent} holds a run already; name another folder, or resume it.")
    try:
        checkpoint = read(path)
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
