"""Parts that touch without sharing nodes are found and told; merged they are the mesh that was meant."""

import warnings

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, MeshError, box, integrate, unit_cube, unit_square
from fem.mesh.gaps import coincident, lowest_of_each
from fem.reference.cells import CELLS
from solvers import minimize
from tests.problems import bend, boundary_nodes, disk, hard_mesh, irregular, mixed_mesh, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def said(make) -> str:
    """What making a mesh warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return " ".join(str(w.message) for w in caught)


def cut(mesh: Mesh, noise: float = 0.0) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Nodes and cells of two halves that share no node: the right one (x > ½) has copies, and which node each is of."""
    twin = torch.arange(len(mesh.nodes))
    right = [mesh.nodes[b.connectivity].mean(1)[:, 0] > 0.5 for b in mesh.blocks]
    here = torch.cat([b.connectivity[own].flatten() for b, own in zip(mesh.blocks, right, strict=True)]).unique()
    left = torch.cat([b.connectivity[~own].flatten() for b, own in zip(mesh.blocks, right, strict=True)]).unique()
    both = here[torch.isin(here, left)]
    number = twin.clone()
    number[both] = len(twin) + torch.arange(len(both))
    blocks = {
        b.cell.name: torch.where(own[:, None], number[b.connectivity], b.connectivity)
        for b, own in zip(mesh.blocks, right, strict=True)
    }
    copies = mesh.nodes[both] + noise * (rand(len(both), mesh.nodes.shape[1]) - 0.5)
    return torch.cat([mesh.nodes, copies]), blocks, torch.cat([twin, both])


def halves(cell: str, degree: int) -> Mesh:
    """The unit box with a plane between cells at x = ½, bent there for higher degrees."""
    mesh = scrambled(small_mesh(cell))
    return mesh if degree == 1 else mesh.curved(degree, lambda x: x + 0.1 * (2 * x.roll(1, -1)).sin() * x * (1 - x))


# -- nodes at one place ------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_halves_that_share_no_node(cell: str, degree: int, noise: float):
    """Two facets per cell there become one; names, curved nodes and the measure are those of the whole."""
    mesh = halves(cell, degree)
    nodes, blocks, twin = cut(mesh, noise)
    copies = int(torch.isin(twin[len(mesh.nodes) :], mesh.topology.vertex_nodes).sum())
    text, apart = said(lambda: Mesh(nodes, blocks)), Mesh(nodes, blocks, merge=False)
    facets = (len(apart.topology.boundary) - len(mesh.topology.boundary)) // 2
    assert f"Nodes that coincide with another one: {copies}, such as nodes" in text
    assert f"facets that stand twice: {facets}." in text
    assert "Hanging" not in text
    assert "`merge=False` says that it is meant" in text
    tuples = blocks[cell][:, list(CELLS[cell].facets[0])]
    merged = Mesh(nodes, blocks, facet_tags={"some": tuples}, merge=1e-8)
    assert torch.equal(merged.nodes, nodes)
    assert torch.equal(merged.topology.facets.num_cells.sort().values, mesh.topology.facets.num_cells.sort().values)
    assert torch.equal(merged.cells, twin[blocks[cell]])
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(merged, Lagrange(2))
    assert V.num_dofs == W.num_dofs
    torch.testing.assert_close(integrate(W, 1.0), integrate(V, 1.0), rtol=1e-7 if noise else 1e-12, atol=0)
    for tag in ("some", "boundary"):
        length = integrate(FunctionSpace(mesh.with_tags({"some": twin[tuples]}), Lagrange(2)), 1.0, tag)
        torch.testing.assert_close(integrate(W, 1.0, tag), length, rtol=1e-7 if noise else 1e-12, atol=0)


def test_the_warned_distance_is_one_that_merges():
    nodes, blocks, _ = cut(hard_mesh("triangle", "scrambled", 4), 3e-9)
    nodes = 1e-3 * nodes
    text = said(lambda: Mesh(nodes, blocks))
    distance = float(text.split("`merge=")[1].split("`")[0])
    assert 1e-12 < distance < 1e-9
    assert said(lambda: Mesh(nodes, blocks, merge=distance)) == ""


def test_mixed_halves():
    mesh = mixed_mesh()
    nodes, blocks, _ = cut(mesh)
    assert "facets that stand twice: 2" in said(lambda: Mesh(nodes, blocks))
    assert len(Mesh(nodes, blocks, merge=0).topology.boundary) == len(mesh.topology.boundary)


def test_every_cell_with_nodes_of_its_own():
    """As programs write discontinuous fields: merged, the Laplacian is that of the whole."""
    mesh = irregular("mixed", 6)
    blocks, parts, start = {}, [], 0
    for block in mesh.blocks:
        parts.append(mesh.nodes[block.connectivity].flatten(0, 1))
        blocks[block.cell.name] = start + torch.arange(len(parts[-1])).reshape(block.connectivity.shape)
        start += len(parts[-1])
    nodes = torch.cat(parts)
    assert f"Nodes that coincide with another one: {len(nodes) - len(mesh.nodes)}," in said(lambda: Mesh(nodes, blocks))
    sides = {"left": lambda x: x[..., 0] < 1e-9, "right": lambda x: x[..., 0] > 1 - 1e-9}
    V = FunctionSpace(Mesh(nodes, blocks, facet_tags=sides, merge=1e-10), Lagrange(1))
    assert V.num_dofs == len(mesh.nodes)
    J = Energy(V, lambda x, u, grad_u: 0.5 * grad_u.square().sum(-1), Dirichlet(V, {"left": 0.0, "right": 1.0}))
    torch.testing.assert_close(minimize(J).value, V.dof_coordinates[:, 0])


def test_cracks_are_meant_where_somebody_says_so():
    """Half a cut: its lips share the tip; nothing is said, and u jumps across it."""
    mesh = unit_square(4)
    nodes, blocks, twin = cut(mesh)
    tip = blocks["quadrilateral"]
    deep = nodes[tip][..., 1] < 0.5 - 1e-9
    tip = torch.where(deep, tip, twin[tip])
    assert "coincide with another one: 2," in said(lambda: Mesh(nodes, tip, "quadrilateral"))
    cracked = Mesh(nodes, tip, "quadrilateral", merge=False)
    assert len(cracked.topology.boundary) == 16 + 4


def test_merged_nodes_may_need_gradients():
    nodes, blocks, _ = cut(unit_square(2))
    nodes.requires_grad_()
    mesh = Mesh(nodes, blocks, merge=1e-9)
    integrate(FunctionSpace(mesh, Lagrange(1)), 1.0).backward()
    assert nodes.grad is not None
    assert bool((nodes.grad[9:] == 0).all())  # the copies are not used any more
    assert bool((nodes.grad[0] != 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("cell", ["triangle", "hexahedron"])
def test_scales_and_dtypes(cell: str, dtype: torch.dtype, shift: float, size: float):
    mesh = hard_mesh(cell, "scrambled", 3)
    nodes, blocks, _ = cut(mesh)
    assert said(lambda: Mesh((size * (mesh.nodes + shift)).to(dtype), mesh.cells, cell)) == ""
    assert "coincide" in said(lambda: Mesh((size * (nodes + shift)).to(dtype), blocks))


@cells
@pytest.mark.parametrize("stretch", [1e-5, 1e5])
def test_thin_cells_touch_nobody_else(cell: str, stretch: float):
    mesh = hard_mesh(cell, "scrambled", 4)
    scale = torch.tensor([1.0, stretch, 1.0], dtype=torch.float64)[: mesh.dim]
    assert said(lambda: Mesh(mesh.nodes * scale, mesh.cells, cell)) == ""


def test_layers_that_grow_by_powers_of_ten():
    mesh = unit_square(6, cell="triangle")
    graded = torch.stack([mesh.nodes[:, 0], 10.0 ** (6 * mesh.nodes[:, 1] - 6)], 1)
    assert said(lambda: Mesh(graded, mesh.cells)) == ""


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_pairs_are_those_of_all_comparisons(dim: int):
    """Up to links that a chain of others makes: the groups are the same."""
    base = rand(150, dim)
    points = torch.cat([base, base[:50], base[20:40] + 1e-7 * rand(20, dim, seed=1)])
    reach = 1e-6 * (0.01 + rand(len(points), seed=2))
    near = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    wanted = torch.nonzero(torch.triu(near <= torch.minimum(reach[:, None], reach), 1)).T
    found = coincident(points, reach)
    assert bool((near[found[0], found[1]] <= torch.minimum(*reach[found])).all())
    count = len(points)
    assert torch.equal(lowest_of_each(count, found), lowest_of_each(count, wanted))


def test_long_chains_have_one_lowest():
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    pairs = torch.stack([order[:-1], order[1:]])
    assert bool((lowest_of_each(1001, pairs)[:1000] == 0).all())


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (-1e-9, r"`Mesh\(merge=...\)` must be a non-negative number"),
        (True, "must be a non-negative number"),
        ("1", "n"),
    ],
)
def test_merge_must_be_a_distance(merge, message: str):
    mesh = unit_square(2)
    with pytest.raises((ValueError, TypeError), match=message):
        Mesh(mesh.nodes, mesh.cells, "quadrilateral", merge=merge)


@pytest.mark.parametrize("degree", [1, 2])
def test_merging_spares_the_nodes_of_a_cell(degree: int):
    mesh = unit_square(4).curved(degree)
    with pytest.raises(
        MeshError, match=r"`merge=0\.3` would make one of two nodes of quadrilateral 0, which are 0\.\d+ ap"
    ):
        Mesh(mesh.nodes, mesh.cells, "quadrilateral", merge=0.3)


# -- hanging nodes -----------------------------------------------------------------------------------------------------


def refined_half(cell: str) -> tuple[Tensor, dict[str, Tensor]]:
    """A box whose right half (x > ½) has cells of half the size; where vertices coincide, the halves share nodes."""
    dim = CELLS[cell].dim
    coarse = box((0.0,) * dim, (0.5, *(1.0,) * (dim - 1)), (1, *(2,) * (dim - 1)), cell=cell)
    fine = box((0.5, *(0.0,) * (dim - 1)), (1.0,) * dim, (2, *(4,) * (dim - 1)), cell=cell)
    nodes = torch.cat([coarse.nodes, fine.nodes])
    number = lowest_of_each(len(nodes), coincident(nodes, torch.full_like(nodes[:, 0], 1e-9)))
    return nodes, {cell: number[torch.cat([coarse.cells, fine.cells + len(coarse.nodes)])]}


@pytest.mark.parametrize(
    ("cell", "count"), [("triangle", 2), ("quadrilateral", 2), ("tetrahedron", 16), ("hexahedron", 16)]
)
def test_halves_of_different_size(cell: str, count: int):
    """On an edge of the plane, and on edges and faces in space."""
    nodes, blocks = refined_half(cell)
    text = said(lambda: Mesh(nodes, blocks))
    assert f"Hanging nodes: {count}, such as node" in text
    assert f"lies on {cell}" in text
    assert "coincide" not in text
    node = int(text.split("such as node ")[1].split(" at")[0])
    assert float(nodes[node, 0]) == 0.5
    assert said(lambda: Mesh(nodes, blocks, merge=False)) == ""
    assert "Hanging nodes" in said(lambda: Mesh(nodes, blocks, merge=1e-9))


def test_hanging_on_another_kind_of_cell_in_single_precision():
    nodes = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [1, 0.3], [2, 0.5]])
    blocks = {"quadrilateral": [[0, 1, 2, 3]], "triangle": [[1, 5, 4], [4, 5, 2]]}
    assert "Hanging nodes: 1, such as node 4 at [1.0, 0.3" in said(lambda: Mesh(nodes, blocks))


def test_hanging_on_a_curved_edge():
    """Two small curved squares along the bent side of a large one, sharing its ends."""
    big = unit_square(1).curved(2, lambda x: x + torch.stack([0.3 * x[:, 1] * (1 - x[:, 1]) * x[:, 0], 0 * x[:, 1]], 1))
    rows = unit_square(1, 2).curved(2).nodes
    small = torch.stack([rows[:, 0] + 1 + 0.3 * rows[:, 1] * (1 - rows[:, 1]), rows[:, 1]], 1)
    nodes, fine = torch.cat([big.nodes, small]), unit_square(1, 2).curved(2).cells + len(big.nodes)
    number = lowest_of_each(len(nodes), coincident(nodes, torch.full_like(nodes[:, 0], 1e-9)))
    middle = int((nodes - torch.tensor([1.075, 0.5])).norm(dim=1).argmin())
    keep = fine.flatten()[(nodes[fine.flatten()] - nodes[middle]).norm(dim=1).argmin()]
    number[keep] = keep  # a node in the midst of an edge is no vertex of it
    text = said(lambda: Mesh(nodes, number[torch.cat([big.cells, fine])], "quadrilateral"))
    assert f"Hanging nodes: 1, such as node {int(keep)}" in text


def test_plates_that_meet_without_being_joined():
    """A vertical plate stands on the middle of a horizontal one, on no vertex of it."""
    flat = unit_square(3)
    lower = torch.cat([flat.nodes, 0 * flat.nodes[:, :1]], 1)
    upper = torch.stack([0 * flat.nodes[:, 0] + 0.5, flat.nodes[:, 0], flat.nodes[:, 1]], 1)
    nodes, connectivity = torch.cat([lower, upper]), torch.cat([flat.cells, flat.cells + len(lower)])
    assert "Hanging nodes: 4, such as node 16 at [0.5, 0.0, 0.0]" in said(
        lambda: Mesh(nodes, connectivity, "quadrilateral")
    )


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
        ),
    ],
)
@pytest.mark.parametrize("degree", [1, 2])
def test_meshes_on_devices(device: str, degree: int):
    """Found, merged and refused where the nodes are."""
    nodes, blocks, _ = cut(halves("triangle", degree))
    nodes, cells = nodes.to(device), blocks["triangle"].to(device)
    assert "coincide" in said(lambda: Mesh(nodes, cells))
    merged = Mesh(nodes, cells, facet_tags={"some": cells[:, :2]}, merge=1e-9)
    assert merged.cells.device.type == merged.facets_tagged("some").device.type == device
    with pytest.raises(MeshError, match="one cell that stands twice"):
        Mesh(nodes, torch.cat([cells, cells[:1]]))
    with pytest.raises(MeshError, match="cells overlap"):
        Mesh(torch.cat([nodes, nodes + 0.3]), torch.cat([merged.cells, merged.cells + len(nodes)]))
    hung = refined_half("triangle")
    assert "Hanging" in said(lambda: Mesh(hung[0].to(device), {"triangle": hung[1]["triangle"].to(device)}))


# -- cells that reach into one another ---------------------------------------------------------------------------------


@cells
def test_bodies_that_overlap(cell: str):
    """They share no node and no facet."""
    mesh = hard_mesh(cell, "scrambled", 3)
    nodes = torch.cat([mesh.nodes, mesh.nodes + 0.41])
    both = torch.cat([mesh.cells, mesh.cells + len(mesh.nodes)])
    with pytest.raises(MeshError, match=rf"cells overlap: .* \d+ at \[.*\] lies inside {cell} \d+\..*`merge=False`"):
        Mesh(nodes, both, cell)
    assert Mesh(nodes, both, cell, merge=False).num_cells == 2 * mesh.num_cells


@cells
def test_a_body_inside_another_one(cell: str):
    mesh = hard_mesh(cell, "scrambled", 3)
    nodes = torch.cat([mesh.nodes, 0.1 * mesh.nodes + 0.41])
    with pytest.raises(MeshError, match=rf"cells overlap: .* \d+ .*lies inside {cell} \d+\."):
        Mesh(nodes, torch.cat([mesh.cells, mesh.cells + len(mesh.nodes)]), cell)


@pytest.mark.parametrize("shared", [True, False])
def test_two_meshes_of_one_region(shared: bool):
    """Quadrilaterals and triangles over the same square; their boundaries are the same, sharing nodes or not."""
    square, cut_square = unit_square(3), unit_square(3, cell="triangle")
    nodes, triangles = square.nodes, cut_square.cells
    if not shared:
        nodes, triangles = torch.cat([nodes, cut_square.nodes]), triangles + len(nodes)
    with pytest.raises(MeshError, match=r"lie on top of their neighbours|cells overlap"):
        Mesh(nodes, {"quadrilateral": square.cells, "triangle": triangles})


def test_two_meshes_of_one_region_that_share_no_vertex_but_the_corners():
    """Vertices of each lie on the boundary of the other: points inside cells tell."""
    one, two = unit_square(2), unit_square(3)
    nodes, both = torch.cat([one.nodes, two.nodes]), torch.cat([one.cells, two.cells + len(one.nodes)])
    with pytest.raises(
        MeshError, match=r"cells overlap: a point of quadrilateral \d+ at .* lies inside quadrilateral \d+"
    ):
        Mesh(nodes, both, "quadrilateral")


@pytest.mark.parametrize("cell", ["triangle", "tetrahedron"])
def test_a_cell_across_others_with_which_it_shares_its_vertices(cell: str):
    """One vertex of a cell is another node than was meant: nothing but the cell itself lies where it should not."""
    mesh = hard_mesh(cell, "scrambled", 4)
    at_boundary, seen = boundary_nodes(mesh), 0
    for number in range(0, mesh.num_cells, 7):
        wrong = mesh.cells.clone()
        wrong[number, 0] = at_boundary[number % len(at_boundary)]
        if wrong[number, 0] in mesh.cells[number]:
            continue
        with pytest.raises(MeshError, match=r"cells overlap|lie on top|degenerate|inverted"):
            Mesh(mesh.nodes, wrong, cell)
        seen += 1
    assert seen > 3


def test_a_doubled_part():
    mesh = hard_mesh("tetrahedron", "scrambled", 2)
    nodes = torch.cat([mesh.nodes, mesh.nodes])
    again = torch.cat([mesh.cells, mesh.cells[:3] + len(mesh.nodes)])
    with pytest.raises(MeshError, match=r"tetrahedron . and tetrahedron .* are one cell that stands twice"):
        Mesh(nodes, again, "tetrahedron", merge=1e-9)
    with pytest.raises(MeshError, match=r"one cell that stands twice|lie on top|overlap"):
        Mesh(nodes, again, "tetrahedron")


def test_curved_neighbours_met_by_a_polygon():
    """A disk in a hole of straight edges: its nodes lie a little inside the cells around, which is told only."""
    round_, hole = disk(6, 3), disk(6, 1)
    outer = boundary_nodes(hole)
    angle = torch.atan2(hole.nodes[outer, 1], hole.nodes[outer, 0]).sort()
    ring, n = hole.nodes[outer][angle.indices], len(outer)
    turn = (angle.values.roll(-1) + angle.values) / 2
    turn[-1] += torch.pi
    rotated = torch.stack([turn.cos(), turn.sin()], 1)
    nodes = torch.cat([round_.nodes, rotated, 2 * rotated])
    i = torch.arange(n)
    quads = len(round_.nodes) + torch.stack([i, i + n, (i + 1) % n + n, (i + 1) % n], 1)
    text = said(lambda: Mesh(nodes, {"triangle": round_.cells, "quadrilateral": quads}))
    assert len(ring) == n
    assert "Hanging nodes" in text


# -- nothing to say ----------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("kind", ["plain", "distorted", "scrambled", "curved"])
def test_sound_meshes(cell: str, kind: str):
    mesh = hard_mesh(cell, kind, 3)
    assert said(lambda: Mesh(mesh.nodes, mesh.cells, cell)) == ""


def test_sound_curves_and_surfaces():
    line = box((0.0,), (2 * torch.pi,), (12,))
    circle = torch.cat([line.nodes.cos(), line.nodes.sin()], 1)
    assert "Nodes that coincide with another one: 1" in said(lambda: Mesh(circle, line.cells, "interval"))
    assert said(lambda: Mesh(circle[:-1], line.cells % 12, "interval")) == ""  # closed: no boundary at all
    cube = unit_cube(2)
    facets = cube.facets[cube.topology.boundary]
    assert said(lambda: Mesh(cube.nodes, facets, "quadrilateral")) == ""
    assert said(lambda: Mesh(bend(cube.nodes), facets, "quadrilateral")) == ""


def test_bodies_that_touch_at_a_corner_or_not_at_all():
    one = unit_square(2)
    two = torch.cat([one.cells, one.cells + len(one.nodes)])
    assert said(lambda: Mesh(torch.cat([one.nodes, one.nodes + 1.001]), two, "quadrilateral")) == ""
    corner = said(lambda: Mesh(torch.cat([one.nodes, one.nodes + 1.0]), two, "quadrilateral"))
    assert "coincide with another one: 1," in corner
    assert "facets that stand twice: 0" in corner
