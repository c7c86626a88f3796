"""Disks and balls without singular points: patches around a square or a cube, for `isogeometric_space`."""

from math import cos, pi, sqrt
from numbers import Real
from typing import Any

import torch

from nurbs.geometry.numbers import Number, floating
from nurbs.geometry.surface import Surface
from nurbs.geometry.volume import Volume
from nurbs.modelling.primitives import arc, line, ruled
from nurbs.modelling.transformation import permute, transform


def disk_patches(radius: Number = 1.0, core: float = 0.4, dtype: torch.dtype | None = None) -> tuple[Surface, ...]:
    """The disk around the origin as a square and four patches between its sides and the circle, exact.

    Their outer sides are called "outer".

    Args:
        radius: positive; a tensor gives dtype and device, and gets gradients.
        core: half the side of the square, relative to the radius, below 1/√2.
        dtype: of the patches; by default that of the radius, float64 for numbers.

    Raises:
        ValueError: a radius that is not positive, a core that does not fit in.
    """
    check_core("disk_patches", core, 1 / sqrt(2))
    corners = core * torch.tensor(
        [[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64, device="cpu"
    )
    square = Surface(torch.stack([corners[[3, 2]], corners[[0, 1]]]), degree=1)
    patches: list[Any] = [square]
    for k in range(4):
        inner = line(corners[k], corners[(k + 1) % 4])
        outer = arc(1.0, pi / 2, (2 * k - 1) * pi / 4)
        patches.append(permute(ruled(inner, outer), (1, 0)).replace(sides=("core", "outer", "first", "last")))
    return scaled("disk_patches", patches, radius, dtype)


def ball_patches(radius: Number = 1.0, core: float = 0.4, dtype: torch.dtype | None = None) -> tuple[Volume, ...]:
    """The ball around the origin as a cube and six patches between its faces and the sphere, exact.

    The sphere's part above a face is the stereographic image of a plane biquadratic patch between four arcs of 30°, and
    so of degree 4: (2XW, 2YW, W² − X² − Y², W² + X² + Y²) in homogeneous coordinates. Outer sides are called "outer".

    Args:
        radius: positive; a tensor gives dtype and device, and gets gradients.
        core: half the edge of the cube, relative to the radius, below 1/√3.
        dtype: of the patches; by default that of the radius, float64 for numbers.

    Raises:
        ValueError: a radius that is not positive, a core that does not fit in.

    Source: J. Cobb, Tiling the sphere with rational Bézier patches, University of Utah, 1988 (the idea).
    """
    check_core("ball_patches", core, 1 / sqrt(3))
    face = torch.tensor(
        [[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64, device="cpu"
    )
    inner = Surface(core * face.view(2, 2, 3), degree=1)
    shell = ruled(inner, sphere_tile()).replace(sides=("first", "second", "third", "fourth", "core", "outer"))
    cube = torch.stack(
        torch.meshgrid(*[core * torch.tensor([-1.0, 1.0], dtype=torch.float64, device="cpu")] * 3, indexing="ij"), -1
    )
    patches: list[Any] = [Volume(cube, degree=1)]
    x, y, z = torch.eye(3, dtype=torch.float64, device="cpu")
    for rows in ((x, y, z), (x, -y, -z), (z, y, -x), (-z, y, x), (x, z, -y), (x, -z, y)):  # turns of the top
        patches.append(transform(shell, torch.stack(rows)))
    return scaled("ball_patches", patches, radius, dtype)


def scaled(call: str, patches: list[Any], radius: Number, dtype: torch.dtype | None) -> tuple[Any, ...]:
    """Patches of unit size brought to a radius."""
    (size,) = floating(call, radius=radius)
    size = size if dtype is None else size.to(dtype)
    if size.numel() != 1 or not size > 0:
        raise ValueError(f"`{call}(radius=...)` must be a positive number; got {radius}.")
    patches = [patch.to(size.device, size.dtype) for patch in patches]
    return tuple(patch.replace(control_points=size.reshape(()) * patch.control_points) for patch in patches)


def sphere_tile() -> Surface:
    """The part of the unit sphere above the square z = 1, |x|, |y| ≤ 1."""
    k, c = 1 / (1 + sqrt(3)), cos(pi / 12)
    e = sqrt(2) / c - 1
    plane = torch.tensor(
        [[[-k, -k], [-e, 0], [-k, k]], [[0, -e], [0, 0], [0, e]], [[k, -k], [e, 0], [k, k]]],
        dtype=torch.float64,
        device="cpu",
    )
    weights = torch.tensor([[1, c, 1], [c, c * c, c], [1, c, 1]], dtype=torch.float64, device="cpu")
    u = torch.linspace(0, 1, 5, dtype=torch.float64, device="cpu")
    X, Y, W = Surface(torch.cat([plane * weights[..., None], weights[..., None]], -1), degree=2)(u, u).unbind(-1)
    values = torch.stack([2 * X * W, 2 * Y * W, W * W - X * X - Y * Y, W * W + X * X + Y * Y], -1)
    bernstein = torch.stack([[1, 4, 6, 4, 1][i] * u**i * (1 - u) ** (4 - i) for i in range(5)], -1)
    inverse = torch.linalg.inv(bernstein)
    return Surface.from_homogeneous(torch.einsum("iu,jv,uvd->ijd", inverse, inverse, values), degree=4)


def check_core(call: str, core: float, most: float) -> None:
    if not isinstance(core, Real) or not 0 < core < most:
        raise ValueError(f"`{call}(core=...)` must lie between 0 and {most:.4f}; got {core!r}.")
