"""Modules that own what defines a patch as parameters, in coordinates in which every value is a valid one."""

from numbers import Real
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nurbs.geometry.directions import UVW

Learnable = TypeVar("Learnable", bound="HasPatchTensors")
LEARNABLE = ("control_points", "weights", "knots")


@runtime_checkable
class HasPatchTensors(Protocol):
    """What a module needs of the patch that it learns: its tensors, and patches like it with other ones."""

    @property
    def control_points(self) -> Float[Tensor, "..."]: ...
    @property
    def weights(self) -> Float[Tensor, "..."] | None: ...
    @property
    def knots(self) -> tuple[Float[Tensor, "..."], ...]: ...
    def replace(self: Learnable, **changes: Any) -> Learnable: ...
    def detach(self: Learnable) -> Learnable: ...
    def __call__(self, *parameters: Float[Tensor, "..."]) -> Float[Tensor, "..."]: ...
    def at(self, points: Float[Tensor, "*#b q r"]) -> Float[Tensor, "*b q d"]: ...


class OrderedKnots(nn.Module):
    """Knots that cannot decrease: t = t_0 + (t_end - t_0) cumsum(s), s = f/K + (1 - f) softmax(z) over the K spans.

    The first and last knot stay; equal knots stay equal and move together. f is the `floor`: no span that was not empty
    becomes shorter than f times the mean one.
    """

    moving: Bool[Tensor, "..."]
    start: Float[Tensor, "..."]
    end: Float[Tensor, "..."]

    def __init__(self, knots: Float[Tensor, "*b m"], floor: float = 1e-4):
        super().__init__()
        t = knots.detach()
        spans = t.diff() / (t[..., -1:] - t[..., :1])
        moving = spans > 0
        count = moving.sum(-1, keepdim=True)
        smallest = (spans * count).masked_fill(~moving, 1).amin().item()
        self.floor = min(floor, smallest / 2)
        self.register_buffer("start", t[..., :1].clone())
        self.register_buffer("end", t[..., -1:].clone())
        self.register_buffer("moving", moving)
        share = ((spans - self.floor / count) / (1 - self.floor)).masked_fill(~moving, 1)
        self.logits = nn.Parameter(share.log())

    def forward(self) -> Float[Tensor, "*b m"]:
        share = self.logits.masked_fill(~self.moving, -torch.inf).softmax(-1)
        spans = self.moving * (self.floor / self.moving.sum(-1, keepdim=True)) + (1 - self.floor) * share
        inner = self.start + (self.end - self.start) * spans.cumsum(-1)
        inner = torch.where(self.moving.flip(-1).cumsum(-1).flip(-1) > self.moving, inner, self.end)  # ends are exact
        return torch.cat([self.start, inner], -1)


class LearnedPatch(nn.Module, Generic[Learnable]):
    """A patch whose control points, weights or knots are parameters; called like the patch.

    `module.patch` is the `Curve`, `Surface` or `Volume` of the present parameters, through which gradients flow, for
    everything else a patch can do. Weights are exp(log_weights), always positive; knots are `OrderedKnots`.
    """

    def __init__(self, patch: Learnable, *names: str, floor: float = 1e-4):
        super().__init__()
        unknown = [name for name in names if name not in LEARNABLE]
        if unknown or not names:
            raise ValueError(f"`learn(*names)` takes some of {LEARNABLE}; got {names}.")
        if not isinstance(floor, Real) or not 0 <= floor < 1:
            raise ValueError(f"`learn(floor=...)` must lie in [0, 1); got {floor!r}.")
        self._fixed = patch.detach()
        self.names = names
        if "control_points" in names:
            self.control_points = nn.Parameter(patch.control_points.detach().clone())
        if "weights" in names:
            weights = torch.ones_like(patch.control_points[..., 0]) if patch.weights is None else patch.weights
            self.log_weights = nn.Parameter(weights.detach().log())
        if "knots" in names:
            self.knots = nn.ModuleDict({UVW[axis]: OrderedKnots(t, floor) for axis, t in enumerate(patch.knots)})

    @property
    def patch(self) -> Learnable:
        changes = {}
        if "control_points" in self.names:
            changes["control_points"] = self.control_points
        if "weights" in self.names:
            changes["weights"] = self.log_weights.exp()
        if "knots" in self.names:
            changes["knots"] = tuple(knots() for knots in self.knots.values())
        return self._fixed.replace(**changes)

    def forward(self, *parameters: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Points on the tensor grid of the parameters."""
        return self.patch(*parameters)

    def at(self, points: Float[Tensor, "*#b q r"]) -> Float[Tensor, "*b q d"]:
        """Points at scattered parameters."""
        return self.patch.at(points)

    def _apply(self, fn, recurse: bool = True):
        module = super()._apply(fn, recurse)
        fixed = self._fixed
        weights = None if fixed.weights is None else fn(fixed.weights)
        knots = tuple(fn(t) for t in fixed.knots)
        self._fixed = fixed.replace(control_points=fn(fixed.control_points), weights=weights, knots=knots)
        return module
