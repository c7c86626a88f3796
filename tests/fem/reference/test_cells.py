"""Reference cells: their entities, frames and normals."""

import pytest
import torch

from fem.reference.cells import (
    CELLS,
    Cell,
    entity_cell,
    get_cell,
    hexahedron,
    interval,
    point,
    quadrilateral,
    tetrahedron,
    triangle,
)

cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def corners(cell: Cell) -> torch.Tensor:
    return torch.tensor(cell.vertices, dtype=torch.float64)


@cells
def test_euler_characteristic(cell: Cell) -> None:
    counts = [*(cell.num_vertices, len(cell.edges), len(cell.faces))[: cell.dim], 1]
    assert sum((-1) ** k * n for k, n in enumerate(counts)) == 1


@cells
def test_each_vertex_lies_on_as_many_facets(cell: Cell) -> None:
    facets = torch.tensor(cell.facets)
    assert (torch.bincount(facets.flatten(), minlength=cell.num_vertices) == (cell.dim if cell.dim > 1 else 1)).all()
    assert all(cell.facet_cell.num_vertices == len(facet) for facet in cell.facets)


@cells
def test_frames_reach_every_vertex_of_an_entity(cell: Cell) -> None:
    for entity in (*((v,) for v in range(cell.num_vertices)), *cell.edges, *cell.faces):
        origin, tangents = cell.frame(entity)
        kind = entity_cell(len(entity))
        reached = origin + corners(kind).reshape(kind.num_vertices, kind.dim) @ tangents
        assert torch.equal(reached, corners(cell)[list(entity)])


@cells
def test_facet_normals_are_unit_vectors_pointing_out(cell: Cell) -> None:
    for facet, normal in zip(cell.facets, cell.facet_normals, strict=True):
        heights = (corners(cell) - corners(cell)[facet[0]]) @ normal
        rest = [v for v in range(cell.num_vertices) if v not in facet]
        torch.testing.assert_close(normal.norm(), torch.ones_like(normal[0]))
        assert heights[list(facet)].abs().max() < 1e-14
        assert heights[rest].max() < -0.1


def test_facet_normals_close_the_cell() -> None:
    """Σ_f |f| n_f = 0; the tetrahedron's slanted face has area √3/2."""
    areas = torch.tensor([0.5 if normal.abs().max() == 1 else 3**0.5 / 2 for normal in tetrahedron.facet_normals])
    assert (areas.double() @ tetrahedron.facet_normals).abs().max() < 1e-7


@cells
def test_volume_is_that_of_the_corners(cell: Cell) -> None:
    """Kuhn's subdivision: a product of intervals holds r! simplices, a simplex one."""
    pairs = {"interval": 1, "triangle": 0.5, "quadrilateral": 1, "tetrahedron": 1 / 6, "hexahedron": 1}
    assert cell.volume == pytest.approx(pairs[cell.name])


def test_entity_cells_and_names() -> None:
    assert [entity_cell(n) for n in (1, 2, 3, 4)] == [point, interval, triangle, quadrilateral]
    assert get_cell("hexahedron") is hexahedron
    assert get_cell(hexahedron) is hexahedron
    assert [c.is_simplex for c in CELLS.values()] == [True, True, False, True, False]
    with pytest.raises(ValueError, match=r"`cell` must be one of interval, .*hexahedron; got 'pyramid'. Divide"):
        get_cell("pyramid")
