"""Nearest points: against brute force on straight and curved boundaries, grids, surfaces; their derivatives."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem.mesh.generators import box, unit_interval, unit_square
from fem.mesh.mesh import Mesh
from fem.mesh.search.nearest import nearest
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace
from tests.fem.mesh.search.test_location import NAMES, bend, curved, grid, mixed_mesh, rand


def positions(mesh: Mesh, points: Tensor) -> Tensor:
    """Where the nearest points are: the identity, evaluated."""
    return at(mesh, *nearest(mesh, points))


def at(mesh: Mesh, cell: Tensor, reference: Tensor) -> Tensor:
    found = reference.new_zeros(len(cell), mesh.num_coordinates)
    for i, block in enumerate(mesh.blocks):
        rows = ((cell >= mesh.block_starts[i]) & (cell < mesh.block_starts[i + 1])).nonzero()[:, 0]
        table = block.element.tabulate(reference[rows], 0).value[0]
        corners = mesh.nodes[block.nodes_of(cell[rows] - mesh.block_starts[i])]
        found = found.index_copy(0, rows, (table[:, None] @ corners)[:, 0])
    return found


def sampled(mesh: Mesh, n: int) -> Tensor:
    """Many points of the boundary, or of a curve or surface itself; vertices and edges among them."""
    line, parts, table = torch.linspace(0, 1, n + 1, dtype=torch.float64), [], mesh.topology.facets
    for i, block in enumerate(mesh.blocks):
        pieces = [(None, tuple(range(block.cell.num_vertices)))]
        if mesh.dim == mesh.num_coordinates:
            own = mesh.topology.boundary[table.block[mesh.topology.boundary] == i]
            pieces = [(table.cell[own[table.local[own] == k]], v) for k, v in enumerate(block.cell.facets)]
        for cells, vertices in pieces:
            origin, tangents = block.cell.frame(vertices)
            eta = (
                torch.cartesian_prod(*[line] * len(tangents)).reshape(-1, len(tangents))
                if len(tangents)
                else line[:1, None][:, :0]
            )
            if len(vertices) == 3:
                eta = eta[eta.sum(1) < 1 + 1e-9]
            parts.append(mesh.map(i, cells, (origin + eta @ tangents).to(mesh.nodes))[0].flatten(0, 1))
    return torch.cat(parts)


def around(mesh: Mesh, count: int = 60) -> Tensor:
    """Points outside a mesh, near and far."""
    low, high = mesh.nodes.amin(0), mesh.nodes.amax(0)
    x = low + (high - low) * (3 * rand(count * 4, mesh.num_coordinates, seed=7) - 1)
    inside = FunctionSpace(mesh, Lagrange(1))
    lost = inside.evaluate(inside.interpolate(0.0), x, outside=1.0) > 0
    return x[lost][:count]


SURFACE = unit_square(3, cell="triangle")
MESHES = {
    **{name: grid(name).with_nodes(bend(grid(name).nodes)) for name in NAMES},
    **{f"curved {name} {p}": curved(name, p) for name in NAMES[1:] for p in (2, 3)},
    "mixed": mixed_mesh(),
    "surface": Mesh(
        torch.cat([SURFACE.nodes, SURFACE.nodes.square().sum(1, keepdim=True)], 1), SURFACE.cells, "triangle"
    ),
    "curve": Mesh(
        torch.stack([torch.linspace(0, 1, 9).double(), torch.linspace(0, 3, 9).double().sin()], 1),
        torch.stack([torch.arange(8), torch.arange(1, 9)], 1),
        "interval",
    ),
}


@pytest.mark.parametrize("name", MESHES)
def test_no_point_of_the_boundary_is_nearer(name):
    mesh = MESHES[name]
    x, n = around(mesh), 24 if mesh.num_coordinates == 3 else 400
    found = (positions(mesh, x) - x).norm(dim=1)
    samples = sampled(mesh, n)
    brute = torch.cdist(x, samples, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    assert bool((found <= brute + 1e-12).all())
    apart = float((mesh.nodes.amax(0) - mesh.nodes.amin(0)).norm()) / n  # of neighbouring samples, at most
    assert bool((found >= (brute - apart).clamp(min=0)).all())


def test_straight_facets_are_exact():
    """Against the closed formula for the distance of a point to a segment."""
    mesh = grid("triangle", 3).with_nodes(bend(grid("triangle", 3).nodes))
    x = around(mesh, 200)
    a, b = mesh.nodes[mesh.facets[mesh.topology.boundary]].unbind(1)
    t = (((x[:, None] - a) * (b - a)).sum(-1) / (b - a).square().sum(-1)).clamp(0, 1)
    expected = (a + t[..., None] * (b - a) - x[:, None]).norm(dim=-1).amin(1)
    assert torch.allclose((positions(mesh, x) - x).norm(dim=1), expected, rtol=0, atol=1e-14)


def test_grids_clamp_and_agree_with_the_search():
    mesh = box((0.0, -1.0), (2.0, 1.0), (3, 4))
    x = torch.tensor([[3.0, 0.3], [-1.0, 5.0], [1.1, -1.5]], dtype=torch.float64)
    expected = torch.tensor([[2.0, 0.3], [0.0, 1.0], [1.1, -1.0]], dtype=torch.float64)
    assert torch.allclose(positions(mesh, x), expected, rtol=0, atol=1e-15)
    assert torch.allclose(positions(mesh.with_nodes(mesh.nodes.clone()), x), expected, rtol=0, atol=1e-14)


def test_circles_are_met_at_right_angles_from_either_side():
    def ring(x: Tensor) -> Tensor:  # a quarter of one
        radius, angle = 0.5 + 0.5 * x[:, :1], torch.pi / 2 * x[:, 1:]
        return radius * torch.cat([angle.cos(), angle.sin()], 1)

    mesh = unit_square(8, cell="triangle").curved(3, ring)
    angle = torch.pi / 2 * (0.05 + 0.9 * rand(50))
    ray = torch.stack([angle.cos(), angle.sin()], 1)
    for radius, foot in ((3.0, 1.0), (0.2, 0.5)):
        found = positions(mesh, radius * ray)
        assert torch.allclose(found, foot * ray, rtol=0, atol=1e-3)  # as the geometry's slopes
        distance = (found - radius * ray).norm(dim=1)
        assert torch.allclose(distance, torch.full_like(distance, abs(radius - foot)), rtol=0, atol=2e-6)


SOME = ["triangle", "curved quadrilateral 2", "curved hexahedron 2", "curved tetrahedron 3", "surface"]


@pytest.mark.parametrize("name", SOME)
def test_derivatives_in_points_and_nodes(name):
    mesh = MESHES[name]
    x = around(mesh, 4)

    def value(x: Tensor, nodes: Tensor) -> Tensor:
        moved = mesh.with_nodes(nodes)
        return at(moved, *nearest(moved, x))

    inputs = (x.requires_grad_(), mesh.nodes.clone().requires_grad_())
    assert gradcheck(value, inputs, fast_mode=True)
    assert gradgradcheck(value, inputs, fast_mode=True)


def test_intervals_have_ends_and_single_precision_works():
    mesh = unit_interval(3, dtype=torch.float32).with_nodes(torch.tensor([[0.0], [0.2], [0.7], [1.0]]))
    x = torch.tensor([[-3.0], [1.5]])
    assert torch.equal(positions(mesh, x), torch.tensor([[0.0], [1.0]]))
    flat = unit_square(3, cell="triangle", dtype=torch.float32)
    assert torch.allclose(positions(flat, torch.tensor([[0.3, 2.0]])), torch.tensor([[0.3, 1.0]]))
    assert nearest(flat, torch.zeros(0, 2))[1].shape == (0, 2)
