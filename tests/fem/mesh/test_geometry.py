"""Geometry at quadrature points: volumes, normals, the divergence theorem, derivatives with respect to nodes."""

from math import pi

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem import FunctionSpace, Lagrange, Mesh, MeshError, box, unit_square
from fem.mesh.geometry import cell_domains, facet_domains, geometry
from fem.reference.cells import CELLS
from tests.problems import bend, disk, distorted, hard_mesh, mixed_mesh, polynomial, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)
kinds = pytest.mark.parametrize("kind", ["plain", "distorted", "scrambled", "curved"])


def volume(mesh: Mesh, degree: int = 6) -> Tensor:
    domains = cell_domains(mesh, degree)
    parts = [geometry(mesh, d) for d in domains]
    return sum((g.weights.expand(g.points.shape[:2]).sum() for g in parts), torch.zeros(()))


def surface(mesh: Mesh, tag: str = "boundary", degree: int = 6):
    return [geometry(mesh, d) for d in facet_domains(mesh, tag, degree)]


@cells
@pytest.mark.parametrize("kind", ["plain", "distorted", "scrambled"])
def test_cells_fill_the_unit_box_and_facets_its_surface(cell: str, kind: str) -> None:
    mesh = hard_mesh(cell, kind)
    assert volume(mesh).item() == pytest.approx(1, rel=1e-13)
    area = sum((g.weights.expand(g.points.shape[:2]).sum() for g in surface(mesh)), torch.zeros(()))
    assert area.item() == pytest.approx(2 * mesh.dim, rel=1e-13)


@cells
@kinds
def test_normals_are_unit_vectors(cell: str, kind: str) -> None:
    for g in surface(hard_mesh(cell, kind)):
        lengths = g.normal.norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


@cells
@pytest.mark.parametrize("kind", ["plain", "scrambled"])
def test_normals_of_the_sides_of_a_box(cell: str, kind: str) -> None:
    mesh = hard_mesh(cell, kind)
    for k, side in enumerate(("left", "right", "bottom", "top", "back", "front")[: 2 * mesh.dim]):
        wanted = torch.zeros(mesh.dim, dtype=torch.float64)
        wanted[k // 2] = (-1, 1)[k % 2]
        for g in surface(mesh, side):
            torch.testing.assert_close(g.normal, wanted.expand(g.normal.shape), rtol=0, atol=1e-13)


@cells
@kinds
def test_divergence_theorem(cell: str, kind: str) -> None:
    """∫ ∇·F dx = ∮ F·n ds for F of degree 2, on meshes with curved sides too. Cubic cells need degree 3 · 2 + 2 · 3."""
    mesh = hard_mesh(cell, kind)
    fields = [polynomial(mesh.dim, 2, seed=d) for d in range(mesh.dim)]
    degree = 4 if kind != "curved" else 3 * 2 + 2 * mesh.dim
    inside = 0.0
    for domain in cell_domains(mesh, degree):
        g = geometry(mesh, domain)
        divergence = sum(f.derivative(d)(g.points) for d, f in enumerate(fields))
        inside = inside + (divergence * g.weights).sum()
    through = 0.0
    for g in surface(mesh, degree=degree):
        assert g.normal is not None
        flow = torch.stack([f(g.points) for f in fields], -1)
        through = through + ((flow * g.normal).sum(-1) * g.weights).sum()
    torch.testing.assert_close(inside, through, rtol=1e-11, atol=1e-11)


def test_divergence_theorem_on_mixed_meshes() -> None:
    mesh = scrambled(mixed_mesh())
    assert volume(mesh).item() == pytest.approx(1, rel=1e-13)
    flows = [(g.normal * g.points * g.weights[..., None]).sum() for g in surface(mesh)]
    through = torch.stack(flows).sum()
    assert through.item() == pytest.approx(2, rel=1e-13)


@cells
@kinds
def test_closed_surfaces_have_no_total_normal(cell: str, kind: str) -> None:
    """∮ n ds = 0, which a wrong direction or measure on a single facet would break."""
    mesh = hard_mesh(cell, kind)
    total = sum(((g.normal * g.weights[..., None]).sum((0, 1)) for g in surface(mesh, degree=9)), torch.zeros(()))
    assert total.abs().max() < 1e-12


@pytest.mark.parametrize(("degree", "order"), [(1, 2), (2, 4), (3, 4)])
def test_area_of_the_disk_converges_with_its_geometry(degree: int, order: int) -> None:
    errors = [abs(volume(disk(n, degree)).item() - pi) for n in (4, 8)]
    assert errors[0] / errors[1] > 2 ** (order - 0.2)
    perimeter = sum((g.weights.expand(g.points.shape[:2]).sum() for g in surface(disk(8, degree))), torch.zeros(()))
    assert perimeter.item() == pytest.approx(2 * pi, rel=0.1 / 8**order)


@cells
def test_inverse_is_the_derivative_of_reference_by_physical_coordinates(cell: str) -> None:
    mesh = hard_mesh(cell, "curved")
    (domain,) = cell_domains(mesh, 3)
    g = geometry(mesh, domain)
    _, jacobian, _ = mesh.map(0, None, domain.points)
    identity = torch.eye(mesh.dim, dtype=torch.float64).expand(*jacobian.shape[:2], -1, -1)
    torch.testing.assert_close(g.inverse @ jacobian, identity)


@cells
def test_map_differentiates_like_autograd(cell: str) -> None:
    mesh = hard_mesh(cell, "curved")
    points = torch.full((2, mesh.dim), 0.2, dtype=torch.float64)
    points[1] = 0.3 / mesh.dim
    _, jacobian, second = mesh.map(0, None, points, 2)

    def position(p: Tensor) -> Tensor:
        return mesh.map(0, None, p[None])[0][:, 0]

    for q in range(2):
        first = torch.autograd.functional.jacobian(position, points[q])
        torch.testing.assert_close(jacobian[:, q], first)
        wanted = torch.stack(
            [
                torch.as_tensor(torch.autograd.functional.hessian(lambda p, e=e, d=d: position(p)[e, d], points[q]))
                for e in range(2)
                for d in range(mesh.dim)
            ]
        )
        torch.testing.assert_close(second[:2, q].flatten(0, 1), wanted)


def test_surfaces_in_space() -> None:
    """A cylinder's quarter from a flat sheet: area π/2 · 1, and points on it at distance 1 from the axis."""

    def roll(x: Tensor) -> Tensor:
        angle = x[:, 0] * pi / 2
        return torch.stack([angle.cos(), x[:, 1], angle.sin()], -1)

    areas = []
    for n in (2, 4):
        flat = unit_square(n, n, cell="triangle")
        sheet = Mesh(torch.cat([flat.nodes, 0 * flat.nodes[:, :1]], 1), flat.cells)
        areas.append(volume(sheet.curved(3, roll)).item() - pi / 2)
    assert abs(areas[0] / areas[1]) > 2**3.8
    (domain,) = cell_domains(sheet, 2)
    assert geometry(sheet, domain).inverse.shape[-2:] == (2, 3)


def test_curves_in_the_plane() -> None:
    nodes = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]], dtype=torch.float64)
    mesh = Mesh(nodes, torch.tensor([[0, 1], [1, 2]]), "interval")
    assert volume(mesh).item() == pytest.approx(7)


def test_uniform_grids_share_one_jacobian() -> None:
    g = geometry(unit_square(4, 3), cell_domains(unit_square(4, 3), 3)[0])
    assert (g.inverse.shape[0], g.weights.shape[0]) == (1, 1)
    assert g.points.shape[0] == 12


# -- derivatives with respect to nodes ---------------------------------------------------------------------------------


@cells
def test_gradient_with_respect_to_nodes(cell: str) -> None:
    mesh = distorted(small_mesh(cell, 1 if CELLS[cell].dim == 3 else 2), seed=3)
    weights = polynomial(mesh.dim, 2)

    def integral(nodes: Tensor) -> Tensor:
        moved = mesh.with_nodes(nodes)
        cells_part = sum(
            ((weights(g.points) * g.weights).sum() for g in (geometry(moved, d) for d in cell_domains(moved, 2))),
            torch.zeros(()),
        )
        return cells_part + sum(
            ((g.normal[..., 0] * g.weights * g.points[..., 0]).sum() for g in surface(moved, degree=2)),
            torch.zeros(()),
        )

    nodes = mesh.nodes.clone().requires_grad_()
    assert gradcheck(integral, nodes, fast_mode=mesh.dim == 3)
    if mesh.dim < 3:
        assert gradgradcheck(integral, nodes)


@cells
def test_derivative_of_volume_along_a_dilation(cell: str) -> None:
    """d/dt |Ω((1 + t) x)| = d |Ω| at t = 0."""
    mesh = distorted(small_mesh(cell))
    nodes = mesh.nodes.clone().requires_grad_()
    (grad,) = torch.autograd.grad(volume(mesh.with_nodes(nodes)), nodes)
    assert (grad * nodes).sum().item() == pytest.approx(mesh.dim, rel=1e-12)


def test_geometry_follows_nodes_changed_in_place() -> None:
    """A space caches geometry; writing into `mesh.nodes` must not leave the old one behind."""
    mesh = unit_square(2, 2, cell="triangle")
    space = FunctionSpace(mesh, Lagrange(1))
    (domain,) = space.quadrature.domains()
    before = space.quadrature.geometry(domain).weights.sum()
    assert space.quadrature.geometry(domain) is space.quadrature.geometry(domain)
    mesh.nodes.mul_(2)
    assert space.quadrature.geometry(domain).weights.sum().item() == pytest.approx(4 * before.item())


def test_folded_cells_are_named_when_integrated() -> None:
    mesh = unit_square(2, 2)
    mesh.nodes[4] = torch.tensor([-0.5, 0.3], dtype=torch.float64)
    with pytest.raises(MeshError, match=r"quadrilateral \d is inverted"):
        geometry(mesh, cell_domains(mesh, 4)[0])


def test_bent_meshes_are_not_boxes() -> None:
    assert volume(small_mesh("quadrilateral").curved(3, bend)).item() != pytest.approx(1, rel=1e-3)


# -- facets inside the domain ----------------------------------------------------------------------------------------


def middle(mesh: Mesh) -> Mesh:
    """The mesh of a unit box, cells "west" and "east" of x = ½ and the facets "mid" between them."""
    centres = torch.stack([mesh.nodes[[n for n in f if n >= 0]].mean(0) for f in mesh.facets.tolist()])
    between = torch.nonzero((centres[:, 0] - 0.5).abs() < 1e-9).flatten()
    return mesh.with_tags({"mid": between}, {"west": lambda x: x[:, 0] < 0.5, "east": lambda x: x[:, 0] > 0.5})


def shuffled(mesh: Mesh, seed: int) -> Mesh:
    order = torch.randperm(mesh.num_cells, generator=torch.Generator().manual_seed(seed))
    return Mesh(mesh.nodes, mesh.cells[order], mesh.blocks[0].cell.name)


@cells
@pytest.mark.parametrize("seed", range(3))
def test_facets_inside_are_seen_from_the_side_that_is_said(cell: str, seed: int) -> None:
    mesh = middle(
        shuffled(box([0.0] * CELLS[cell].dim, [1.0] * CELLS[cell].dim, [4, 2, 2][: CELLS[cell].dim], cell=cell), seed)
    )
    for side, sign in (("west", 1.0), ("east", -1.0)):
        found = [geometry(mesh, d) for d in facet_domains(mesh, ("mid", side), 2)]
        assert sum(float(g.weights.expand(g.points.shape[:2]).sum()) for g in found) == pytest.approx(1, rel=1e-13)
        for g in found:
            torch.testing.assert_close(g.normal[..., 0], torch.full_like(g.normal[..., 0], sign))
        for domain in facet_domains(mesh, ("mid", side), 2):
            assert set(domain.cells.tolist()) <= set(mesh.cell_tags[side].tolist())


def test_a_side_of_facets_on_the_boundary_and_of_a_grid() -> None:
    mesh = middle(unit_square(4))
    for tag in ("left", ("left", "west")):
        (g,) = [geometry(mesh, d) for d in facet_domains(mesh, tag, 2)]
        assert g.weights.expand(g.points.shape[:2]).sum().item() == pytest.approx(1, rel=1e-13)
        assert g.normal.flatten().tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (("mid", "all"), "at 4 of 4 facets more than one"),
        (("mid", "corner"), r"at 3 of 4 facets none has it \(the first is at x = \[0\.5, "),
        (("left", "east"), "at 4 of 4 facets none"),
        (("mid", "wset"), "unknown cell tag 'wset'; .* Did you mean 'west'"),
        (("mdi", "west"), "unknown facet tag 'mdi'"),
    ],
)
def test_a_side_that_does_not_tell_one_cell_is_refused(tag: tuple[str, str], message: str) -> None:
    mesh = middle(unit_square(4)).with_tags(
        cell_tags={"all": lambda x: x[:, 0] < 2, "corner": lambda x: (x[:, 0] < 0.5) & (x[:, 1] < 0.25)}
    )
    with pytest.raises(ValueError, match=message):
        facet_domains(mesh, tag, 2)


def test_mixed_meshes_have_sides_too() -> None:
    mesh = mixed_mesh()
    shared = torch.nonzero(mesh.topology.facets.num_cells == 2).flatten()
    mesh = mesh.with_tags({"inside": shared}, {"first": [0]})
    number, owner = mesh.topology.facets_of_cells()
    mine = number[(owner[0] == 0) & (owner[1] == 0)]
    mesh = mesh.with_tags({"around": mine[torch.isin(mine, shared)]})
    found = facet_domains(mesh, ("around", "first"), 2)
    assert sum(d.cells.numel() for d in found) == mesh.facet_tags["around"].shape[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert {(d.block, *d.cells.tolist()) for d in found} == {(0, 0)}
