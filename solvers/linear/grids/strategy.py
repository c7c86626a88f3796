"""How multigrid goes about a grid: along which axes the next level is coarser, and how much is smoothed.

From level to level an axis first loses degrees, then every second vertex, and only while its couplings are strong, so
that stretched cells become nearly square before all axes are coarsened.
Interpolation is linear where coefficients are smooth, and follows the operator where they are rough.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import gcd

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.linear.conjugate_gradients import ritz_values
from solvers.linear.grids.coarsening import CellCollapse, DegreeCoarsening, VertexCoarsening
from solvers.linear.grids.coarsest import bandwidth, has_factors
from solvers.linear.grids.front_layer import FrontLayer
from solvers.linear.grids.operator_coarsening import OperatorCoarsening, offsets
from solvers.operators.stencil import Stencil, StencilGrid
from solvers.operators.stencil_product import Product

COARSEST = 130  # unknowns per item that a dense inverse takes care of
ENTRIES = 2**17  # of the inverses of all items together; beyond, another level costs less
ROUGH_COARSEST, ROUGH_ENTRIES = 1100, 2**21  # the same where coefficients are rough: few coarse levels do them justice
FACTORS = 500  # operations for band factors there, for each unknown of the finest level
ROUGH = 0.01  # mean fourth power of the relative difference of couplings beyond which interpolation follows them
STRONG = 0.5  # axes with couplings of this strength, relative to the strongest, are coarsened
# Degree in D⁻¹A and ratio λ_max/λ_min of smoothing, by the number of axes that are not coarsened: along those the mass
# matrices of linear elements widen the spectrum by 3. (The finest level is content with degree one and a ratio of 3.)
SMOOTHING = ((2, 4.0), (2, 6.0), (3, 15.0))
EASY = (1, 3.0)


def is_coarsest(stencil: Stencil, dtype: torch.dtype, finest: int | None = None) -> bool:
    """Whether a direct solve takes less time than another level.

    Args:
        dtype: of the cycles.
        finest: unknowns of the finest level of one item, where coefficients are rough.
    """
    grid = stencil.grid
    count = grid.size // grid.batch * len(grid.types)
    if finest is None:
        return count <= COARSEST and grid.batch * count**2 <= ENTRIES
    if count * bandwidth(grid) ** 2 <= FACTORS * finest and has_factors(grid, stencil.data, dtype):
        return True
    return count <= ROUGH_COARSEST and grid.batch * count**2 <= ROUGH_ENTRIES


def ways_down(
    stencil: Stencil, width: list[Tensor], fixed: Bool[Tensor, "t k"] | None, before: list, branched: bool
) -> list[tuple[list, list[Tensor]]]:
    """The steps to each of the coarse grids below a level, and the widths there: none, one or two.

    They go along the axes of strong coupling, to a lower degree or else to fewer vertices.

    Args:
        width: of the layers of cells along each axis.
        fixed: where interpolation is to follow the operator.
        before: the steps that led to this level.
        branched: whether there were two coarse grids above already.
    """
    grid = stencil.grid
    possible, strength = coarsenable(grid), strengths(stencil)
    strongest = max((strength[k] for k in possible), default=0)
    strong = tuple(k for k in possible if strength[k] >= STRONG * strongest)
    single = [k for k in strong if grid.degrees[k] == 1 and grid.vertices[k] == 2]
    if fixed is not None and len(grid.types) == 1 and strong and not single:
        shifts = [()]
        # Each cell has an even vertex, on the finest grid; in space clusters hardly miss one, on a line none does.
        if len(strong) == 2 and before and isinstance(before[-1], OperatorCoarsening) and not any(grid.periodic):
            shifts = [(), strong] if branched else [strong[:1], strong[1:]]
        return [(following(stencil, strong, fixed, shift), width) for shift in shifts]
    width, steps = list(width), []
    for k in strong if fixed is None else single or strong:
        if lower := grid.degrees[k] - 1:
            steps.append(DegreeCoarsening(grid, k, lower))
        elif k in single:
            steps.append(CellCollapse(grid, k))
        else:
            steps.append(VertexCoarsening(grid, k, width[k]))
            width[k] = steps[-1].width
        grid = steps[-1].coarse
    return [(steps, width)] if steps else []


def following(stencil: Stencil, axes: Sequence[int], fixed: Bool[Tensor, "t k"], shift: Sequence[int]) -> list:
    """The steps to every second vertex, the odd ones along some axes, with interpolation that follows the operator."""
    if not shift:
        return [OperatorCoarsening(stencil, axes, fixed)]
    layer = FrontLayer(stencil.grid, shift)
    return [layer, OperatorCoarsening(layer.operator(stencil), axes, layer.fixed(fixed))]


def is_rough(stencil: Stencil) -> bool:
    """Whether couplings to both sides of a vertex differ so much that interpolation has to follow the operator.

    (S₊ − S₋)⁴ / (S₊ + S₋)⁴ for the couplings S₊ and S₋ to the next and the last layer of an axis, in the mean over the
    vertices that have both: nothing for constant coefficients, little for smooth ones and for a single jump.
    """
    grid = stencil.grid
    if grid.components > 1:
        return False
    sample = sampling(grid, 1024)
    sides = stencil.data.new_zeros(grid.dim, 2, grid.batch, len(range(0, grid.size // grid.batch, sample)))
    for offset in offsets(grid):
        k, shift = stencil.place(0, 0, offset)
        values = grid.items(grid.shifted(stencil.data[k : k + 1], shift))[:, 0, ::sample]
        for axis, o in enumerate(offset):
            if o:
                sides[axis, (o + 1) // 2] -= values
    low, high = sides.unbind(1)
    both = (low != 0) & (high != 0)
    share = torch.where(both, (high - low) / (high + low), 0) ** 4
    return bool((share.sum(-1) > ROUGH * both.sum(-1)).any())


def sampling(grid: StencilGrid, count: int) -> int:
    """Every how many vertices are so many of each item, in all rows and columns."""
    sample = max(grid.size // grid.batch // count, 1)
    while gcd(sample, grid.strides[0]) > 1:
        sample += 1
    return sample


def coarsenable(grid: StencilGrid) -> list[int]:
    """Axes of more than one cell, and those of one for scalars, which hardly vary along it once it is a strong axis.

    Displacements do (plates bend).
    """
    least = [3 if grid.components > 1 or (grid.periodic and grid.periodic[k]) else 2 for k in range(grid.dim)]
    return [k for k in range(grid.dim) if grid.degrees[k] > 1 or grid.vertices[k] >= least[k]]


def strengths(stencil: Stencil) -> list[float]:
    """How strongly neighbours along each axis are coupled, −Σ_j A_ij (j − i)² / A_ii with j − i in nodes of that axis.

    The least over all items, relative to the strongest axis of each.
    """
    grid = stencil.grid
    sample = sampling(grid, 4096)
    shaped = grid.items(grid.shifted(stencil.data))[..., ::sample]  # "b z n"
    inverse = 1 / shaped[:, : len(grid.types)].abs()
    total = shaped.new_zeros(grid.batch, grid.dim)
    for a, row in enumerate(grid.types):
        keys = [key for key, k in grid.keys.items() if key[0] == a and k >= len(grid.types)]
        keys = [(b, o, grid.keys[a, b, o]) for _, b, o in keys if grid.types[b][-1] == row[-1]]
        if keys:
            both = inverse[:, a, None] + inverse[:, [b for b, _, _ in keys]]
            coupling = (shaped[:, [k for _, _, k in keys]] * both).nan_to_num(0, 0, 0).sum(-1)
            columns = [(grid.types[b], o) for b, o, _ in keys]
            distance = [[o[k] * p + c[k] - row[k] for k, p in enumerate(grid.degrees)] for c, o in columns]
            total -= coupling @ torch.tensor(distance, device="cpu").to(coupling) ** 2
    largest = total.amax(-1, keepdim=True)
    return torch.where(largest > 0, total / largest, 1).amin(0).tolist()


def largest_eigenvalue(stencil: Stencil, steps: int = 8, sample: int = 2**13) -> Float[Tensor, "b"]:
    """The largest |λ| of |D|⁻¹A of each item on the middle layers of the slowest axis; never above that of all."""
    part, inverse = middle_layers(stencil, max(sample // (stencil.grid.batch * stencil.grid.strides[0]), 8))
    grid, diagonal = part.grid, part.diagonal.abs()
    product = Product(part, part.buffer(), part.buffer())
    average = grid.averaging(product.y)
    x, y, inverse, diagonal = (grid.items(t) for t in (product.x, product.y, inverse, diagonal))

    def apply(q: Tensor) -> Tensor:
        x.copy_(q)
        product()
        average()
        return y

    generator = torch.Generator(x.device).manual_seed(0)
    # All dofs weigh the same in |D|⁻¹, fixed ones with their ones on the diagonal too, whatever the scale of others.
    start = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) * diagonal.sqrt() * (inverse > 0)
    start = y.copy_(start)
    average()
    largest = ritz_values(apply, lambda r: inverse * r, start.clone(), steps, lead=1).abs().amax(-1)
    return torch.where(largest > 0, largest, 1).to(x.dtype)


def middle_layers(stencil: Stencil, count: int) -> tuple[Stencil, Tensor]:
    """The part of a stencil on so many layers of the slowest axis, and 1/|D| there, zero outside.

    One more layer, of zeros, keeps items apart where layers are left out.
    """
    grid = stencil.grid
    count = min(count, grid.vertices[0])
    start = (grid.vertices[0] - count) // 2
    periodic = grid.periodic and (False, *grid.periodic[1:])
    small = replace(grid, vertices=(count + (count < grid.vertices[0]), *grid.vertices[1:]), periodic=periodic)
    part = Stencil.zeros(small, stencil.data)
    whole = grid.shifted(stencil.data).unflatten(-1, (grid.batch, *grid.vertices))
    layers = small.shifted(part.data).unflatten(-1, (grid.batch, *small.vertices))
    layers[:, :, :count] = whole[:, :, start : start + count]
    diagonal = small.averaged(part.diagonal).abs()
    return part, torch.where(diagonal > 0, 1 / diagonal, 0)
