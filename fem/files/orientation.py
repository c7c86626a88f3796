"""Cells that run the wrong way round are turned, unless that would hide that they lie on one another."""

import torch
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.geometry import cell_domains, facet_domains, geometry
from fem.mesh.jacobian import determinant
from fem.mesh.mesh import Mesh, make_block, mirrored_nodes


def oriented(nodes: Tensor, cells: dict[str, Tensor]) -> Mesh:
    """The mesh with every cell that runs the wrong way round turned.

    A cell may also be negative because its nodes have crossed its neighbours. Turning it would hide the damage, but not
    from the divergence theorem: Σ_cells |V| = 1/d ∮ x·n only where no cell lies on another.
    """
    turned = {}
    for name, connectivity in cells.items():
        block = make_block(nodes, name, connectivity)
        if block.cell.dim == nodes.shape[1]:
            centre = torch.tensor(block.cell.vertices, dtype=torch.float64, device="cpu").mean(0, keepdim=True)
            grad = block.element.tabulate(centre.to(nodes)).grad
            assert grad is not None
            negative = determinant(torch.einsum("ar,ead->edr", grad[0, 0], nodes[connectivity])) < 0
            mirrored = connectivity[:, mirrored_nodes(block.cell, block.degree)]
            connectivity = torch.where(negative[:, None], mirrored, connectivity)
        turned[name] = connectivity
    mesh = Mesh(nodes, turned)
    if any(not torch.equal(turned[name], cells[name]) for name in cells):
        volume, flux = volume_and_flux(mesh)
        if abs(volume - flux) > 1e-4 * volume:
            raise MeshError(
                f"cells lie on top of their neighbours: they measure {volume:.6g} together, but their boundary "
                f"encloses {flux:.6g}. Nodes have crossed, or cells overlap."
            )
    return mesh


def volume_and_flux(mesh: Mesh) -> tuple[float, float]:
    """Σ_cells |V| and 1/d ∮ x·n over the boundary, x from the centre of the nodes for the sake of round-off."""
    degree, centre = mesh.dim * max(block.degree for block in mesh.blocks), mesh.nodes.mean(0)
    volume = flux = 0.0
    for domain in cell_domains(mesh, degree):
        part = geometry(mesh, domain)
        volume += float(part.weights.expand(part.points.shape[:2]).sum())
    for domain in facet_domains(mesh, "boundary", degree):
        part = geometry(mesh, domain)
        assert part.normal is not None
        flux += float((((part.points - centre) * part.normal).sum(-1) * part.weights).sum()) / mesh.dim
    return volume, flux
