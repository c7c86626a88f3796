"""Boundary values built into a network: what it returns is right on the boundary, whatever its weights say."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fem.space.space import FunctionSpace
from fem.support.checks import check_callable, check_kind, check_numbers


class Lift(nn.Module):
    """u = base(x) + factor(x) · network(image), with base right on the boundary and factor zero there.

    Args:
        network: from images "b c *grid" to images "b 1 *grid".
        base, factor: callables of the position x "*grid d", in [0, 1] along each axis: 1 − x₁ and x₁ (1 − x₁), say.
    """

    def __init__(self, network: nn.Module, base: Callable[[Tensor], Tensor], factor: Callable[[Tensor], Tensor]):
        super().__init__()
        check_kind("Lift", "network", network, nn.Module, "a network, an `nn.Module`")
        for name, function in (("base", base), ("factor", factor)):
            check_callable("Lift", name, function, "a callable of the position x")
        self.network, self.base, self.factor = network, base, factor

    def forward(self, image: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b 1 *grid"]:
        value = self.network(image)
        with torch.autocast(value.device.type, enabled=False):
            x = positions(value.shape[2:], value, torch.float32)
            return self.base(x) + self.factor(x) * value.to(x.dtype)


class BoundedLift(nn.Module):
    """u = lower + (upper − lower) σ(logit b + network(image)),  b = (base(x) − lower) / (upper − lower).

    σ(t) = 1 / (1 + e⁻ᵗ). Where base is `lower` or `upper`, so is u; elsewhere u lies strictly between them, as the
    solution of a diffusion problem without sources does (maximum principle). With base = 1 − x₁ what the network is
    left to say is, on a line, a difference of logarithms of resistances, log ∫ₓ¹ 1/ν − log ∫₀ˣ 1/ν, less the same for
    ν = 1: it changes by no more than log ν does, however large the contrast, and plateaus of u cost nothing.

    Args:
        network: from images "b c *grid" to images "b 1 *grid".
        base: a callable of the position x "*grid d", in [0, 1] along each axis.
        lower, upper: the least and the largest boundary value.
    """

    def __init__(self, network: nn.Module, base: Callable[[Tensor], Tensor], lower: float = 0.0, upper: float = 1.0):
        super().__init__()
        check_kind("BoundedLift", "network", network, nn.Module, "a network, an `nn.Module`")
        check_callable("BoundedLift", "base", base, "a callable of the position x")
        check_numbers("BoundedLift", "finite", lower=lower, upper=upper)
        if not lower < upper:
            raise ValueError(f"`BoundedLift` needs lower < upper; got {lower!r} and {upper!r}.")
        self.network, self.base, self.lower, self.upper = network, base, lower, upper

    def forward(self, image: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b 1 *grid"]:
        value = self.network(image)
        with torch.autocast(value.device.type, enabled=False):
            x = positions(value.shape[2:], value, torch.float32)
            share = (self.base(x) - self.lower) / (self.upper - self.lower)
            inside = ((share > 0) & (share < 1)).to(x)
            logit = torch.logit(share, eps=1e-6) * inside + value.to(x.dtype)
            # Not by infinities at the ends: their derivatives are not numbers.
            return self.lower + (self.upper - self.lower) * (inside * logit.sigmoid() + (1 - inside) * share)


def positions(size: Sequence[int], like: Tensor, at_least: torch.dtype | None = None) -> Float[Tensor, "*grid d"]:
    """The position of every pixel, in [0, 1] along each axis, x first, in the type of `like` or a more precise one."""
    dtype = like.dtype if at_least is None else torch.promote_types(like.dtype, at_least)
    lines = [torch.linspace(0, 1, n, dtype=dtype, device=like.device) for n in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], -1)


@contextmanager
def evaluating(network: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every part of a network in evaluation, and back to what it was: some may rest while others train."""
    training = [m for m in network.modules() if m.training] if isinstance(network, nn.Module) else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def answer(network: Callable[[Tensor], Tensor], images: Float[Tensor, "b c *grid"]) -> Tensor:
    """What a network says to images, in the type of its weights where it has any."""
    weights = list(network.parameters()) if isinstance(network, nn.Module) else []
    kind = next((p.dtype for p in weights if p.is_floating_point()), images.dtype)
    return network(images.to(kind))


def nodal_values(V: FunctionSpace, image: Float[Tensor, "b *rest"]) -> Float[Tensor, "b n *components"]:
    """What a network returns, "b *grid" or "b 1 *grid" ("b c *grid" for vectors), as dofs of a space."""
    if V.components is None and image.ndim == V.mesh.dim + 2 and image.shape[1] == 1:
        image = image[:, 0]
    return V.from_grid(image).to(V.dtype)
