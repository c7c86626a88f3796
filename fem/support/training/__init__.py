"""Training of networks: one loop under every `train_…`, which says what is trained as a `Task` and how as a `Plan`.

The loop is Lightning's (the extra `train`). A loop of our own would be a page, but each thing that people want of a
training would be another: several processes, mixed precision, accumulated gradients, early stopping, the best of all
checkpoints, loggers of all kinds. With Lightning they come by `trainer=`, tested by many and known by their names. What
is added here is what it does not promise: batches that follow from their number alone, checkpoints that are whole or
not there, runs that resume bit for bit, and no NaN that leaves silently.

An interval (`every` steps) is an epoch of Lightning, and held-out data are its validation: after each interval what
was measured is logged under its name, as "loss" is, and the checkpoint is written. So
`trainer={"callbacks": [EarlyStopping("loss")]}` and `ModelCheckpoint(monitor="loss")` act once per interval.

Lightning takes seconds to import: `loop.py`, the one file that does, is loaded when a training starts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.support.training.loop import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fem.support.training' has no attribute {name!r}")
    return getattr(import_module("fem.support.training.loop"), name)
