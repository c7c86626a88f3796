"""Problems with known answers, and meshes that make life hard for whatever is tested on them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from math import pi
from typing import Any

import torch
from torch import Tensor

from fem import Mesh, box, unit_interval, unit_square
from fem.reference.cells import CELLS, Cell
from fem.reference.lagrange import lagrange_element

# −Δu = 1 with u = 0 on the boundary of the unit square, from the double sine series: the greatest value and ∫u.
TORSION_MAXIMUM = 0.0736713532815
TORSION_INTEGRAL = 0.0351442537388

# -- densities ---------------------------------------------------------------------------------------------------------


def laplace(x: Tensor, u: Tensor, grad_u: Tensor, *params: Any) -> Tensor:
    """½|∇u|²."""
    return 0.5 * grad_u.square().sum(-1)


def poisson(x: Tensor, u: Tensor, grad_u: Tensor, f: Any = 1.0) -> Tensor:
    """½|∇u|² − f u."""
    return laplace(x, u, grad_u) - f * u


def diffusion(x: Tensor, u: Tensor, grad_u: Tensor, k: Any) -> Tensor:
    """½ k |∇u|²."""
    return 0.5 * k * grad_u.square().sum(-1)


def conduction(x: Tensor, u: Tensor, grad_u: Tensor, k: Any, f: Any = 1.0) -> Tensor:
    """½ k |∇u|² − f u."""
    return diffusion(x, u, grad_u, k) - f * u


# -- exact solutions ---------------------------------------------------------------------------------------------------


def sine(x: Tensor) -> Tensor:
    """u = Π_d sin(π x_d), which vanishes on the boundary of the unit interval, square or cube."""
    return torch.sin(pi * x).prod(-1)


def sine_load(x: Tensor) -> Tensor:
    """−Δu of `sine`: d π² u."""
    return x.shape[-1] * pi**2 * sine(x)


def stokes(x: Tensor, u: tuple[Tensor, Tensor], grad_u: tuple[Tensor, Tensor], f: Any = 0.0) -> Tensor:
    """½|∇u|² − p ∇·u − f·u of a velocity and a pressure."""
    (velocity, p), gradient = u, grad_u[0]
    divergence = gradient.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * gradient.square().sum((-1, -2)) - p * divergence - (f * velocity).sum(-1)


def vortex(x: Tensor) -> Tensor:
    """u = π (sin² πx sin 2πy, −sin 2πx sin² πy): free of divergence, and zero on the boundary of the unit square."""
    one = lambda a, b: pi * torch.sin(pi * a).square() * torch.sin(2 * pi * b)  # noqa: E731
    return torch.stack([one(x[..., 0], x[..., 1]), -one(x[..., 1], x[..., 0])], -1)


def vortex_pressure(x: Tensor) -> Tensor:
    """p = cos πx cos πy, with mean zero."""
    return torch.cos(pi * x).prod(-1)


def vortex_load(x: Tensor) -> Tensor:
    """−Δu + ∇p of the vortex."""
    one = lambda a, b: 2 * pi**3 * (1 - 2 * torch.cos(2 * pi * a)) * torch.sin(2 * pi * b)  # noqa: E731
    slope = -pi * torch.sin(pi * x) * torch.cos(pi * x.flip(-1))
    return torch.stack([one(x[..., 0], x[..., 1]), -one(x[..., 1], x[..., 0])], -1) + slope


@dataclass(frozen=True)
class Polynomial:
    """Σ_m coefficients[m] Π_d x_d^exponents[m, d], with its exact derivatives."""

    exponents: Tensor
    coefficients: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        powers = x[..., None, :] ** self.exponents.to(x.device)
        return powers.prod(-1) @ self.coefficients.to(x)

    def derivative(self, axis: int) -> "Polynomial":
        lowered = self.exponents.clone()
        lowered[:, axis] = (lowered[:, axis] - 1).clamp(min=0)
        return Polynomial(lowered, self.coefficients * self.exponents[:, axis])

    def gradient(self, x: Tensor) -> Tensor:
        return torch.stack([self.derivative(d)(x) for d in range(x.shape[-1])], -1)

    def hessian(self, x: Tensor) -> Tensor:
        return torch.stack([self.derivative(d).gradient(x) for d in range(x.shape[-1])], -2)

    def laplacian(self, x: Tensor) -> Tensor:
        return self.hessian(x).diagonal(dim1=-2, dim2=-1).sum(-1)


def polynomial(dim: int, degree: int, tensor: bool = False, seed: int = 0) -> Polynomial:
    """A random polynomial of the given total degree, or, with `tensor`, of that degree in each variable."""
    powers = torch.tensor([i for i in product(range(degree + 1), repeat=dim) if tensor or sum(i) <= degree])
    generator = torch.Generator().manual_seed(seed)
    return Polynomial(powers, 2 * torch.rand(len(powers), dtype=torch.float64, generator=generator) - 1)


# -- meshes ------------------------------------------------------------------------------------------------------------


def small_mesh(cell: str, n: int = 2) -> Mesh:
    """The unit interval, square or cube with n grid cells per direction, plain and in order."""
    dim = CELLS[cell].dim
    return unit_interval(n) if dim == 1 else box((0.0,) * dim, (1.0,) * dim, (n,) * dim, cell=cell)


def symmetries(cell: Cell) -> list[tuple[int, ...]]:
    """Every permutation of a cell's vertices that an orientation-preserving affine map of the cell brings about."""
    corners = torch.tensor(cell.vertices, dtype=torch.float64)
    lifted = torch.cat([corners, torch.ones(len(corners), 1)], 1)
    found = []
    for order in permutations(range(len(corners))) if len(corners) <= 4 else cube_symmetries(cell):
        image = corners[list(order)]
        matrix = torch.linalg.lstsq(lifted, image).solution
        if torch.allclose(lifted @ matrix, image) and torch.linalg.det(matrix[:-1]) > 0:
            found.append(tuple(order))
    return found


def cube_symmetries(cell: Cell) -> list[tuple[int, ...]]:
    """The 48 symmetries of the hexahedron as vertex permutations: axes exchanged, directions reversed."""
    number = {vertex: i for i, vertex in enumerate(cell.vertices)}
    turns = product(permutations(range(3)), product((0, 1), repeat=3))
    return [
        tuple(number[tuple(abs(f - v[axis]) for axis, f in zip(axes, flips, strict=True))] for v in cell.vertices)
        for axes, flips in turns
    ]


def node_symmetries(cell: Cell, degree: int) -> Tensor:
    """For each symmetry of a cell, the node that each node of its Lagrange element lands on, "s a"."""
    nodes = lagrange_element(cell, degree).nodes
    weights = lagrange_element(cell, 1).tabulate(nodes, 0).value[0]
    corners = torch.tensor(cell.vertices, dtype=torch.float64)
    return torch.stack([torch.cdist(weights @ corners[list(s)], nodes).argmin(1) for s in symmetries(cell)])


def scrambled(mesh: Mesh, seed: int = 0) -> Mesh:
    """The same mesh with its nodes renumbered, its cells shuffled and each of them turned in itself, all at random.

    Nothing about the domain changes, tags included; the mesh is no grid any more.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(mesh.nodes), generator=generator)
    number = torch.argsort(order)
    cells, moved = {}, []
    for block, start in zip(mesh.blocks, mesh.block_starts[:-1], strict=True):
        shuffle = torch.randperm(block.num_cells, generator=generator)
        turns = node_symmetries(block.cell, block.degree)
        turn = turns[torch.randint(len(turns), (block.num_cells,), generator=generator)]
        cells[block.cell.name] = number[block.connectivity[shuffle]].gather(1, turn)
        moved.append(start + torch.argsort(shuffle))
    facets = {tag: mesh.facets[mesh.facets_tagged(tag)] for tag in mesh.facet_tags}
    facet_tags = {tag: torch.where(f < 0, f, number[f]) for tag, f in facets.items()}
    cell_tags = {tag: torch.cat(moved)[index] for tag, index in mesh.cell_tags.items()}
    return Mesh(mesh.nodes[order], cells, facet_tags=facet_tags, cell_tags=cell_tags)


def boundary_nodes(mesh: Mesh) -> Tensor:
    """Mesh nodes at the vertices of the boundary facets."""
    facets = mesh.facets[mesh.topology.boundary]
    return facets[facets >= 0].unique()


def distorted(mesh: Mesh, amount: float = 0.2, seed: int = 0) -> Mesh:
    """The mesh with its inner vertices moved by up to `amount` times the shortest edge; the boundary stays."""
    assert all(block.degree == 1 for block in mesh.blocks)
    edges = [
        mesh.nodes[b.connectivity[:, list(e)]].diff(dim=1).norm(dim=-1).min() for b in mesh.blocks for e in b.cell.edges
    ]
    generator = torch.Generator().manual_seed(seed)
    shift = (
        (2 * torch.rand(mesh.nodes.shape, dtype=mesh.dtype, generator=generator) - 1)
        * amount
        * torch.stack(edges).min()
    )
    shift[boundary_nodes(mesh)] = 0
    return mesh.with_nodes(mesh.nodes + shift)


def bend(x: Tensor) -> Tensor:
    """A smooth invertible map that bends the unit interval, square or cube, boundary and all."""
    waves = [torch.sin(2 * x.roll(k + 1, -1) + k) for k in range(x.shape[-1])]
    return x + 0.1 * sum(waves, torch.zeros_like(x)) + 0.05 * x.square()


def hard_mesh(cell: str, kind: str, n: int = 2) -> Mesh:
    """A mesh of the unit box: "plain" grid, "distorted", "scrambled" (distorted too), or "curved" (bent, degree 3)."""
    mesh = small_mesh(cell, n)
    if kind == "plain":
        return mesh
    if kind == "curved":
        return scrambled(mesh.curved(3, bend))
    mesh = distorted(mesh)
    return scrambled(mesh) if kind == "scrambled" else mesh


def mixed_mesh() -> Mesh:
    """The unit square, its left half in quadrilaterals and its right half in triangles."""
    grid = box((0.0, 0.0), (1.0, 1.0), (2, 2))
    quadrilaterals, rest = grid.cells[[0, 2]], grid.cells[[1, 3]]
    triangles = torch.cat([rest[:, [0, 1, 2]], rest[:, [0, 2, 3]]])
    sides: dict[str, Callable[[Tensor], Tensor]] = {"left": lambda x: x[..., 0] == 0, "right": lambda x: x[..., 0] == 1}
    return Mesh(grid.nodes, {"quadrilateral": quadrilaterals, "triangle": triangles}, facet_tags=sides)


def irregular(cell: str, n: int) -> Mesh:
    """The unit square in distorted triangles, quadrilaterals, or ("mixed") the former below and the latter above."""
    mesh = unit_square(n, cell="quadrilateral" if cell == "mixed" else cell)
    if cell == "mixed":
        below, above = mesh.cells.split([n * (n // 2), n * (n - n // 2)])
        triangles = torch.cat([below[:, [0, 1, 2]], below[:, [0, 2, 3]]])
        mesh = Mesh(mesh.nodes, {"triangle": triangles, "quadrilateral": above})
    return distorted(mesh)


def disk(n: int, degree: int = 3) -> Mesh:
    """The unit disk in 6 n² triangles with geometry of the given degree; the boundary nodes lie on the circle.

    A hexagon of equilateral triangles is blended into the disk: p ↦ p (1 + ρ² (ρ/|p| − 1)) with ρ(p) the hexagonal
    norm, 1 on the hexagon, so the centre stays as it is.
    """
    lattice = [(i, j) for i in range(-n, n + 1) for j in range(-n, n + 1) if abs(i + j) <= n]
    number = {point: k for k, point in enumerate(lattice)}
    candidates = [((i, j), (i + 1, j), (i, j + 1)) for i in range(-n, n) for j in range(-n, n)]
    candidates += [((i + 1, j), (i + 1, j + 1), (i, j + 1)) for i in range(-n, n) for j in range(-n, n)]
    triangles = [[number[v] for v in cell] for cell in candidates if all(v in number for v in cell)]
    axes = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
    nodes = torch.tensor(lattice, dtype=torch.float64) @ axes / n
    return Mesh(nodes, torch.tensor(triangles)).curved(degree, hexagon_to_disk)


def hexagon_to_disk(x: Tensor) -> Tensor:
    """The regular hexagon with corners on the unit circle onto the unit disk."""
    angles = torch.arange(6, dtype=x.dtype) * pi / 3 + pi / 6
    norm = (x @ torch.stack([angles.cos(), angles.sin()])).amax(-1, keepdim=True) / (3**0.5 / 2)
    length = x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return x * (1 + norm**2 * (norm / length - 1))


# -- derivatives -------------------------------------------------------------------------------------------------------


def taylor_rates(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, step: float = 1e-2) -> list[float]:
    """Observed orders of |f(x + hv) − f(x) − h f'(x) v| under halving of h: 2 where the gradient is right."""
    x = x.detach().requires_grad_()
    value = function(x)
    slope = (torch.autograd.grad(value, x)[0] * direction).sum()
    steps = [step / 2**k for k in range(4)]
    with torch.no_grad():
        errors = torch.stack([(function(x + h * direction) - value - h * slope).abs() for h in steps])
    return torch.log2(errors[:-1] / errors[1:]).tolist()
