"""What takes any curves, surfaces and volumes: the items of a batch, and their plain form."""

import numpy as np
import torch

from fem.support.checks import shown
from nurbs.geometry.curve import Curve
from nurbs.geometry.learned import LearnedPatch
from nurbs.geometry.patch import Patch
from nurbs.geometry.surface import Surface
from nurbs.geometry.volume import Volume

PATCHES = (Curve, Surface, Volume)


def items(patch: Patch | LearnedPatch) -> list[Patch]:
    """The patches of a batch."""
    patch = patch.patch if isinstance(patch, LearnedPatch) else patch
    if not isinstance(patch, PATCHES):
        raise TypeError(f"`Curve`s, `Surface`s and `Volume`s were expected; got {shown(patch)}.")
    return [patch[index] for index in np.ndindex(*patch.batch)] if patch.batch else [patch]


def plain(patch: Patch) -> Patch:
    """On the CPU, in double precision, without gradient and without periodic directions."""
    return patch.detach().to("cpu", torch.float64).unwrapped()
