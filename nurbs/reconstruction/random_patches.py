"""Numbered random surface patches and clouds of points on them, made anew when asked for.

Item i is the same whatever it is asked for together with: all its random numbers are hashes of the seed, i and a
counter, so that training needs to remember no more than a number, and held-out items are other numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fem.reference.bspline import basis_matrix, greville, uniform_knots
from fem.support.checks import check_floating, check_integers, check_numbers, is_integer
from nurbs.geometry.surface import Surface

CONTROL_GRID = 20  # control points per direction
AREA_CELLS = 32  # per direction, for the area and the holes


def random_numbers(items: Int64[Tensor, "b"], count: int, seed: int = 0) -> Float[Tensor, "b {count}"]:
    """Uniform numbers in [0, 1), float64, functions of the seed, the item and the column: SplitMix64's hash.

    Source: G. Steele, D. Lea, C. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    streams = _mixed(items + _mixed(torch.tensor(seed, device=items.device)))
    x = _mixed(streams[:, None] + torch.arange(1, count + 1, device=items.device))
    return _shifted(x, 11).double() * 2.0**-53


def _mixed(x: Tensor) -> Tensor:
    x = x * -0x61C8864680B583EB  # 64-bit integers wrap around
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """The shift to the right that brings in zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


class RandomNumbers:
    """Random numbers of a batch of items, handed out in order."""

    def __init__(self, items: Tensor, count: int, seed: int):
        self.left = random_numbers(items, count, seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "b ..."]:
        size = torch.Size(shape).numel()
        taken, self.left = self.left[:, :size], self.left[:, size:]
        return (low + (high - low) * taken).reshape(-1, *shape)

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Box and Muller's transformation."""
        return (-2 * torch.log1p(-self.uniform(*shape))).sqrt() * (2 * pi * self.uniform(*shape)).cos()


@torch.no_grad()
def area_parameters(
    surface: Surface, numbers: Float[Tensor, "*b m 3"], where: Bool[Tensor, "*b c c"] | None = None
) -> Float[Tensor, "*b m 2"]:
    """Parameters of points uniform in area, for numbers uniform in [0, 1); constant in each of AREA_CELLS² cells.

    Args:
        where: cells that may have points; all by default.
    """
    (u, du), (v, dv) = ((start[..., None], (end - start)[..., None]) for start, end in surface.domain())
    middle = (torch.arange(AREA_CELLS, dtype=surface.dtype, device=surface.device) + 0.5) / AREA_CELLS
    su, sv = surface.derivatives(u + du * middle, v + dv * middle, orders=[(1, 0), (0, 1)])
    area = torch.linalg.vector_norm(torch.linalg.cross(su, sv), dim=-1)
    share = (area if where is None else area.where(where, 0)).flatten(-2).cumsum(-1)
    cell = torch.searchsorted(share, numbers[..., 0] * share[..., -1:]).clamp(max=AREA_CELLS**2 - 1)
    inside = (torch.stack([cell // AREA_CELLS, cell % AREA_CELLS], -1) + numbers[..., 1:]) / AREA_CELLS
    return torch.stack([u, v], -1) + torch.stack([du, dv], -1) * inside


@dataclass(frozen=True)
class RandomPatches:
    """Clouds on open bicubic B-spline patches: rectangles, bent, twisted, waved, moved; with noise and holes.

    `patches(start, count)` gives the clouds "b m 3" of the items start, …, start + count − 1 and the `Surface` that
    each lies on: 20 × 20 control points on clamped uniform knots, the longest side of its bounding box (before the
    motion) 1. Waves are sums of random control grids of c × c points for the c of `levels` up to one drawn for
    each item, of deviation `wave` (4/c)² √(¼, ¼, 1) along the two sides and the normal, so that with (4, 5, 8, 12) a
    quarter of the items is a bicubic polynomial bent.

    Args:
        num_points: of each cloud, uniform in area outside the holes.
        levels: sizes of the control grids of the waves, increasing.
        wave: deviation of the control points of the coarsest grid at most; drawn for each item.
        bend: largest angle by which half a side is bent.
        twist: largest height of a corner by the hyperbolic term, in half sides.
        noise: largest standard deviation of the points, drawn for each item.
        holes: most holes, discs of parameters of radius 0.05 to 0.12.
        seed: another one gives other items.
        dtype, device: of what is returned; float64 is used within.

    Raises:
        ValueError, TypeError: settings out of range.
    """

    num_points: int = 700
    levels: Sequence[int] = (4, 5, 8, 12)
    wave: float = 0.15
    bend: float = 1.2
    twist: float = 0.3
    noise: float = 0.01
    holes: int = 2
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def __post_init__(self):
        name = "RandomPatches"
        if not self.levels or not all(is_integer(c, 4) for c in self.levels):
            raise ValueError(f"`{name}(levels=...)` must be integers of at least 4; got {self.levels!r}.")
        check_integers(name, num_points=self.num_points)
        check_integers(name, 0, holes=self.holes)
        check_integers(name, None, seed=self.seed)
        check_numbers(name, "non-negative", wave=self.wave, noise=self.noise)
        check_numbers(name, "finite", bend=self.bend, twist=self.twist)
        check_floating(name, self.dtype)

    def __call__(self, start: int, count: int) -> tuple[Float[Tensor, "b m 3"], Surface]:
        if not is_integer(start, 0) or not is_integer(count, 1):
            raise ValueError(f"`RandomPatches` needs start >= 0 and count >= 1; got {start!r} and {count!r}.")
        items = torch.arange(start, start + count, device=self.device)
        numbers = RandomNumbers(
            items, 64 + 6 * sum(c * c for c in self.levels) + 9 * self.num_points + 3 * self.holes, self.seed
        )
        surface = Surface(self._moved(self._shape(numbers), numbers))
        points = surface.at(self._parameters(surface, numbers))
        deviation = numbers.uniform(1, 1, high=self.noise)
        points = points + deviation * numbers.normal(self.num_points, 3)
        return points.to(self.dtype), surface.to(self.dtype)

    def _shape(self, numbers: RandomNumbers) -> Float[Tensor, "b 20 20 3"]:
        """Control points in the patch's own frame."""
        knots = uniform_knots(CONTROL_GRID, 3, device=self.device)
        g = greville(knots, 3)
        aspect = numbers.uniform(1, 1, low=0.4)
        x, y = torch.meshgrid(g - 0.5, g - 0.5, indexing="ij")
        y = aspect * y
        x = x.expand_as(y)
        angle, curvature, height = (numbers.uniform(1, 1) for _ in range(3))
        z = self.twist * (2 * height - 1) * 2 * x * y
        last = numbers.uniform(1, 1, 1, high=len(self.levels))
        size = self.wave * numbers.uniform(1, 1, 1)
        waves = 0.0
        for level, c in enumerate(self.levels):
            basis = basis_matrix(uniform_knots(c, 3, device=self.device), 3, g)[0]
            field = torch.einsum("ik,bkld,jl->bijd", basis, numbers.normal(c, c, 3), basis)
            waves = waves + torch.where(last >= level, (4 / c) ** 2, 0.0) * field
        scale = torch.tensor([0.5, 0.5, 1.0], dtype=g.dtype, device=g.device)
        x, y, z = (torch.stack([x, y, z], -1) + size * scale * waves).unbind(-1)
        direction = pi * angle
        c, s = direction.cos(), direction.sin()
        along, beside = c * x + s * y, c * y - s * x
        k = 2 * self.bend * (2 * curvature - 1)
        k = torch.where(k.abs() < 1e-3, 1e-3, k)
        along, z = (k * along).sin() * (1 / k - z), (1 - (k * along).cos()) / k + z * (k * along).cos()
        return torch.stack([along, beside, z], -1)

    def _moved(self, control_points: Tensor, numbers: RandomNumbers) -> Tensor:
        """Scaled to unit size, turned by a random rotation (a random quaternion) and moved."""
        t = torch.linspace(0, 1, AREA_CELLS + 1, dtype=torch.float64, device=self.device)
        points = Surface(control_points)(t, t).flatten(1, 2)
        low, high = points.amin(1), points.amax(1)
        size = (high - low).amax(-1)[:, None, None, None]
        q = torch.nn.functional.normalize(numbers.normal(4), dim=-1)
        w, v = q[:, 0], q[:, 1:]
        zero = torch.zeros_like(w)
        cross = torch.stack([zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero], -1)
        cross = cross.unflatten(-1, (3, 3))
        rotation = torch.eye(3, dtype=q.dtype, device=q.device) + 2 * (w[:, None, None] * cross + cross @ cross)
        centred = (control_points - ((low + high) / 2)[:, None, None]) / size
        return centred @ rotation[:, None] + numbers.uniform(1, 1, 3, low=-1)

    def _parameters(self, surface: Surface, numbers: RandomNumbers) -> Float[Tensor, "b m 2"]:
        """Uniform in area outside the holes."""
        outside = None
        if self.holes:
            centre = numbers.uniform(self.holes, 2, low=0.1, high=0.9)
            radius = numbers.uniform(self.holes, low=0.05, high=0.12)
            present = torch.arange(self.holes, device=self.device) < numbers.uniform(1, high=self.holes + 1).floor()
            middle = (torch.arange(AREA_CELLS, dtype=torch.float64, device=self.device) + 0.5) / AREA_CELLS
            du, dv = (middle - centre[..., axis, None] for axis in (0, 1))
            inside = du[..., :, None] ** 2 + dv[..., None, :] ** 2 < (radius * present)[..., None, None] ** 2
            outside = ~inside.any(1)
        return area_parameters(surface, numbers.uniform(self.num_points, 3), outside)
