"""Topology optimisation: exact volumes, falling compliances, gradients; filter and optimality criteria."""

from pathlib import Path

import pytest
import torch

from examples.design import topology_optimization as topology
from fem import FunctionSpace, Lagrange, MeshError, box, read_mesh, write_vtk

pytest.importorskip("matplotlib").use("Agg")


def check(figures: dict[str, float]) -> None:
    assert figures["volume"] < 1e-13
    assert figures["gradient"] < 1e-8
    assert figures["rise"] < 0
    assert figures["compliance"] < 0.6 * figures["compliance first"]


@pytest.mark.parametrize("shape", [(24, 8), (12, 4, 4)])
def test_designs_of_boxes(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Symmetric as the load is, with all that is promised."""
    check(topology.main(shape=shape, radius=3 / shape[0] * 1.5, patch=0.3, steps=6, out=str(tmp_path)))
    name = f"topology_{len(shape)}d"
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png", f"{name}.vtu"}


def test_designs_of_any_mesh(tmp_path: Path) -> None:
    """Triangles around a hole, and the same read from a file."""
    made = topology.main(shape=(30, 10), hole=0.25, radius=0.2, patch=0.1, steps=4)
    check(made)
    V = FunctionSpace(topology.perforated(10, 0.25), Lagrange(1))
    path = write_vtk(tmp_path / "plate.vtu", V, {})
    assert read_mesh(path).num_cells == V.mesh.num_cells
    read = topology.main(mesh=str(path), radius=0.2, patch=0.1, steps=4)
    assert read["compliance"] == pytest.approx(made["compliance"], rel=1e-10)


def test_densities_stay_between_0_and_1_and_constants_as_they_are() -> None:
    mesh = topology.perforated(6, 0.2)
    H = topology.cone_filter(mesh, 0.3).to_dense()
    torch.testing.assert_close(H.sum(1), torch.ones(mesh.num_cells, dtype=mesh.dtype))
    assert bool((H >= 0).all())
    far = torch.cdist(topology.centres(mesh), topology.centres(mesh)) > 0.3
    assert float(H[far].abs().max()) == 0


def test_optimality_criteria() -> None:
    """min Σ aₑ / ρₑ with Σ ρₑ / n = f has ρₑ ~ √aₑ: its fixed point, where bounds let it be."""
    a = torch.tensor([1.0, 2.0, 3.0, 100.0], dtype=torch.float64)
    share, rho = torch.full_like(a, 0.25), torch.full_like(a, 0.4)
    for _ in range(20):
        rho = topology.optimality_criteria(rho, -a / rho.square(), share, 0.4)
        assert float(share @ rho) == pytest.approx(0.4, abs=1e-15)
    expected = torch.tensor([*(0.6 * a[:3].sqrt() / a[:3].sqrt().sum()), 1.0], dtype=torch.float64)
    torch.testing.assert_close(rho, expected)


def test_a_load_on_nothing_is_refused() -> None:
    with pytest.raises(MeshError, match="'loaded'"):
        topology.cantilever(box((0.0, 0.0), (3.0, 1.0), (30, 10)), 0.05)


@pytest.mark.slow
def test_a_body_in_space() -> None:
    """60 × 20 × 20 cells, 60 steps: gradient, volume and compliance as promised, and memory stays where it is."""
    figures = topology.main(shape=(60, 20, 20), fraction=0.3, steps=60)
    check(figures)
    assert figures["compliance"] < 330
    assert figures["megabytes"] < 20
