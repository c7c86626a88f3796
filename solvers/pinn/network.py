"""Networks as trial functions: the baseline that finite elements are compared with.

u_θ(x) = lift(x) + distance(x) · mlp_θ(x), a multilayer perceptron that has the boundary values built in, or mlp_θ alone
with the boundary in the loss. The strong form needs u, ∇u and Δu. They are carried forward through the layers together:
with z = Wa + b and a ← tanh z,

    ∂z = W ∂a,    Δz = W Δa,    ∂a ← (1 − tanh² z) ∂z,    Δa ← (1 − tanh² z)(Δz − 2 tanh z |∇z|²),

one matrix product per layer for all d + 2 of them, and one pass back for the gradient in θ.

Sources: Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378, 2019 (strong form); E and Yu, Commun. Math. Stat. 6,
2018 (Deep Ritz); Sukumar and Srivastava, Comput. Methods Appl. Mech. Eng. 389, 2022 (boundary values built in); Li et
al., Nature Machine Intelligence 6, 2024 (Laplacian carried forward).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fem.mesh.geometry import cell_domains, geometry
from fem.mesh.mesh import Mesh
from fem.support.checks import (
    check_arguments,
    check_callable,
    check_floating,
    check_integers,
    check_kind,
    check_params,
    shown,
    signature,
)
from fem.support.transforms import hidden, pulled_back, transformed

Field = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Jet:
    """A function and its derivatives at points."""

    value: Float[Tensor, "n"]
    grad: Float[Tensor, "n d"]
    laplacian: Float[Tensor, "n"] | None


@dataclass(frozen=True, eq=False)
class Points:
    """Points to train on, their weights, and what is known there whatever the parameters: made by `PINN.at`."""

    x: Float[Tensor, "n d"]
    weights: Float[Tensor, "n"]
    lift: Jet | None
    distance: Jet | None


class PINN(nn.Module):
    """u(x) = lift(x) + distance(x) · mlp(x) with tanh layers, from points "*b d" to values "*b".

    Weights are Xavier's, drawn from PyTorch's generator (`torch.manual_seed`), biases zero.

    Args:
        dim: d, of the points.
        width, depth: of the hidden layers.
        distance: a callable of x "… d" that is zero on the boundary and nowhere else, such as x(1 − x)y(1 − y).
        lift: a callable of x "… d" with the boundary values; 0 by default.
        dtype: of the parameters; double precision, because single ends at errors of 1e-4.

    Raises:
        ValueError, TypeError: sizes that are not positive, functions that are none, or `lift` without `distance`.
    """

    def __init__(
        self,
        dim: int,
        width: int = 50,
        depth: int = 4,
        distance: Field | None = None,
        lift: Field | None = None,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        check_integers("PINN", dim=dim, width=width, depth=depth)
        check_callable("PINN", "distance", distance, "a callable of x, or None", optional=True)
        check_callable("PINN", "lift", lift, "a callable of x, or None", optional=True)
        check_floating("PINN", dtype)
        if lift is not None and distance is None:
            raise ValueError("`PINN(lift=...)` holds on the boundary only together with `distance=`, zero there.")
        self.dim, self.distance, self.lift = dim, distance, lift
        sizes = (dim, *[width] * depth, 1)
        self.layers: Any = nn.ModuleList([nn.Linear(a, b, dtype=dtype) for a, b in pairwise(sizes)])
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        self.check(x)
        a = x
        for layer in self.layers[:-1]:
            a = layer(a).tanh()
        value = self.layers[-1](a)[..., 0]
        if self.distance is not None:
            value = self.distance(x) * value
        return value if self.lift is None else value + self.lift(x)

    def at(self, x: Float[Tensor, "n d"], weights: Float[Tensor, "n"] | None = None) -> Points:
        """Points with weights, 1/n by default; derivatives of `lift` and `distance` are taken here, once."""
        self.check(x)
        if weights is None:
            weights = torch.full_like(x[:, 0], 1 / len(x))
        check_kind("PINN.at", "weights", weights, Tensor, "a tensor with one weight per point")
        if weights.shape != x.shape[:1]:
            raise ValueError(f"`weights` needs one entry for each of {len(x)} points; got {shown(weights)}.")
        if weights.dtype != x.dtype:
            raise TypeError(f"`weights` are {weights.dtype} and the points {x.dtype}; convert with `weights.to(x)`.")
        lift, distance = (None if f is None else jet_of(f, x, name) for f, name in self.known())
        return Points(x.detach(), weights, lift, distance)

    def known(self) -> tuple[tuple[Field | None, str], ...]:
        return (self.lift, "lift"), (self.distance, "distance")

    def jet(self, points: Points, laplacian: bool = True) -> Jet:
        """u, ∇u and, if asked for, Δu at points, differentiable in the parameters."""
        x = points.x
        n, d = x.shape
        parts = [x[None], torch.eye(d, dtype=x.dtype, device=x.device)[:, None].expand(d, n, d)]
        a = torch.cat([*parts, torch.zeros_like(x)[None]] if laplacian else parts)
        activation: Callable[..., Any] = activated if transformed() else Tanh.apply
        for layer in self.layers[:-1]:
            a = activation(a @ layer.weight.T, layer.bias, d)
        a, last = a @ self.layers[-1].weight[0], self.layers[-1].bias
        u = Jet(a[0] + last, a[1 : d + 1].T, a[-1] if laplacian else None)
        if points.distance is not None:
            u = product(points.distance, u)
        return u if points.lift is None else total(points.lift, u)

    def check(self, x: Tensor) -> None:
        """Raise where points do not fit this network."""
        check_kind("PINN", "x", x, Tensor, f"a tensor of points (..., {self.dim})")
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise ValueError(f"this network takes points (..., {self.dim}); got a tensor of shape {tuple(x.shape)}.")
        dtype = self.layers[0].weight.dtype
        if x.dtype != dtype:
            raise TypeError(f"this network computes in {dtype}; got points in {x.dtype}. Convert either, by `.to`.")


def activated(z: Tensor, bias: Tensor, d: int) -> Tensor:
    """(z, ∂z, Δz), b ↦ (t, s ∂z, s Δz − 2ts |∇z|²) with t = tanh(z + b), s = 1 − t²: "1+d n w", or 2 + d with Δ."""
    t = (z[0] + bias).tanh()
    s = 1 - t * t
    parts = [t[None], z[1 : d + 1] * s]
    if len(z) == d + 2:
        parts.append((s * z[-1] - 2 * t * s * z[1:-1].square().sum(0))[None])
    return torch.cat(parts)


class Tanh(torch.autograd.Function):
    """`activated` as one operation, because as twelve it spends half of its time on writing intermediate results."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, bias: Tensor, d: int) -> Tensor:
        t = (z[0] + bias).tanh_()
        s = 1 - t * t
        out = torch.empty_like(z)
        out[0] = t
        torch.mul(z[1:], s, out=out[1:])
        square = None
        if len(z) == d + 2:
            square = z[1:-1].square().sum(0)
            out[-1].addcmul_(t * s, square, value=-2)
        ctx.save_for_backward(z, bias, t, s, square)
        ctx.d = d
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (y,), (z, bias, t, s, square), d = grads, ctx.saved_tensors, ctx.d
        if hidden(y):
            along_z, along_bias = pulled_back(lambda z, b: (activated(z, b, d),), [z, bias], [True, True], [y])
            return along_z, along_bias, None  # type: ignore[return-value]
        out = torch.empty_like(z)
        torch.mul(y[1:], s, out=out[1:])
        torch.mul(y[0], s, out=out[0])
        ts = t * s
        out[0].addcmul_(ts, (y[1:] * z[1:]).sum(0), value=-2)
        if square is not None:
            out[1:-1].addcmul_(z[1:-1], ts * y[-1], value=-4)
            out[0].addcmul_((s - 2 * t * t).mul_(s).mul_(square), y[-1], value=-2)
        return out, out[0].sum(0), None


def jet_of(function: Field, x: Float[Tensor, "n d"], name: str = "the function") -> Jet:
    """A callable of x and its derivatives, by automatic differentiation.

    Raises:
        ValueError: it does not return one finite number per point.
    """
    value = function(x.detach())
    if not isinstance(value, Tensor) or value.shape != x.shape[:-1]:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"`{name}` of points {tuple(x.shape)} must have shape {tuple(x.shape[:-1])}; got {got}.")
    grad = torch.vmap(torch.func.grad(function))(x.detach())
    second = torch.vmap(torch.func.jacrev(torch.func.grad(function)))(x.detach())
    jet = Jet(value.detach(), grad.detach(), torch.einsum("ndd->n", second).detach())
    if not all(bool(torch.isfinite(t).all()) for t in (value, grad, second)):
        raise ValueError(f"`{name}` or one of its first two derivatives is not finite at some point.")
    return jet


def product(f: Jet, g: Jet) -> Jet:
    """fg, with ∇(fg) = f∇g + g∇f and Δ(fg) = fΔg + 2∇f·∇g + gΔf."""
    grad = f.value[:, None] * g.grad + g.value[:, None] * f.grad
    if f.laplacian is None or g.laplacian is None:
        return Jet(f.value * g.value, grad, None)
    cross = 2 * torch.einsum("nd,nd->n", f.grad, g.grad)
    return Jet(f.value * g.value, grad, f.value * g.laplacian + cross + g.value * f.laplacian)


def total(f: Jet, g: Jet) -> Jet:
    """f + g."""
    laplacian = None if f.laplacian is None or g.laplacian is None else f.laplacian + g.laplacian
    return Jet(f.value + g.value, f.grad + g.grad, laplacian)


# -- losses ------------------------------------------------------------------------------------------------------------


def strong_form(network: PINN, points: Points, residual: Callable[..., Tensor]) -> Float[Tensor, ""]:
    """Σ w r(x, u, ∇u, Δu)²: the mean squared residual, or its integral where the weights are a quadrature's."""
    check_loss("strong_form", network, points, "residual", residual, ("x", "u", "grad_u", "laplacian_u"), 0)
    u = network.jet(points)
    return points.weights @ one_each(residual(points.x, u.value, u.grad, u.laplacian), points, "residual").square()


def deep_ritz(
    network: PINN, points: Points, density: Callable[..., Tensor], params: Sequence[Any] = ()
) -> Float[Tensor, ""]:
    """Σ w ψ(x, u, ∇u, *params): the energy, with the density of an `Energy`; parameters may be callables of x.

    The points must be many: between them the network can do what it likes, and a network that has found out makes the
    sum smaller than any energy.
    """
    params = check_params("deep_ritz", params)
    check_loss("deep_ritz", network, points, "density", density, ("x", "u", "grad_u"), len(params))
    u = network.jet(points, laplacian=False)
    values = [p(points.x) if callable(p) else p for p in params]
    for i, p in enumerate(values):
        check_kind("deep_ritz", f"params[{i}]", p, Real | Tensor, "a number, a tensor or a callable of x")
    return points.weights @ one_each(density(points.x, u.value, u.grad, *values), points, "density")


def check_loss(
    call: str, network: Any, points: Any, name: str, function: Any, own: Sequence[str], num_params: int
) -> None:
    """Raise where a loss is given something else than a network, its points, and a function of these arguments."""
    check_kind(call, "network", network, PINN, "a `PINN`")
    check_kind(call, "points", points, Points, "what `network.at(x)` returns")
    check_callable(call, name, function, f"a callable of ({', '.join(own)}) and parameters")
    check_arguments(name, signature(function), own, num_params)


def one_each(value: Any, points: Points, name: str) -> Float[Tensor, "n"]:
    """What a user's function returned, as one number per point.

    Raises:
        TypeError: not a tensor of the network's type of numbers.
        ValueError: another shape.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"the {name} must return a tensor with one number per point; got {shown(value)}.")
    if value.ndim and value.shape != points.weights.shape:
        raise ValueError(
            f"the {name} must return one number per point, shape {tuple(points.weights.shape)}; got "
            f"{tuple(value.shape)}. Sum over directions, as in `grad_u.square().sum(-1)`."
        )
    if value.dtype != points.weights.dtype:
        raise TypeError(
            f"the {name} returns {value.dtype}, but the network computes in {points.x.dtype}; convert by `.to(x)`."
        )
    return value.expand(points.weights.shape)


def mismatch(network: PINN, x: Float[Tensor, "n d"], value: Field | float = 0.0) -> Float[Tensor, ""]:
    """Mean of (u − value)² at points, for soft boundary conditions: add it to a loss, times a weight."""
    check_kind("mismatch", "network", network, PINN, "a `PINN`")
    wanted = value(x) if callable(value) else value
    check_kind("mismatch", "value", wanted, Real | Tensor, "a number, or a callable of x that returns one per point")
    if isinstance(wanted, Tensor) and wanted.ndim and wanted.shape != x.shape[:-1]:
        raise ValueError(f"`mismatch(value=...)` must give one number per point {tuple(x.shape)}; got {shown(wanted)}.")
    return (network(x) - torch.as_tensor(wanted, dtype=x.dtype, device=x.device)).square().mean()


def gauss_points(mesh: Mesh, degree: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """Points and weights of a quadrature over a mesh, exact to `degree` in each cell."""
    check_kind("gauss_points", "mesh", mesh, Mesh, "a `Mesh`")
    check_integers("gauss_points", 0, degree=degree)
    found = [geometry(mesh, domain) for domain in cell_domains(mesh, degree)]
    weights = [g.weights.expand(g.points.shape[:2]).flatten() for g in found]
    return torch.cat([g.points.flatten(0, 1) for g in found]), torch.cat(weights)
