"""Where loops over cells go: which cells with which rule, and the dofs that fields have there."""

from collections.abc import MutableMapping, Sequence

from torch import Tensor

from fem.kernels.cells.integrand import Cells
from fem.kernels.cells.loop import CellRule
from fem.mesh.geometry import Domain
from fem.mesh.mesh import Mesh
from fem.reference.lagrange import Lagrange
from fem.space.gather_scatter import GatherScatter
from fem.space.space import AnySpace, FunctionSpace
from fem.support.cache import ByObject

_nodes: MutableMapping[Mesh, dict[int, GatherScatter]] = ByObject()


def cells_of(space: AnySpace, domain: Domain, spaces: Sequence[FunctionSpace]) -> Cells:
    """All cells of a domain; `spaces` are those of all fields."""

    def with_degree(degree: int) -> Cells:
        found = space.quadrature.domains(None, degree)
        return cells_of(space, next(d for d in found if d.block == domain.block), spaces)

    maps = {(V.family, 0): V.quadrature.cells(domain) for V in spaces}
    mesh, block = space.mesh, space.mesh.blocks[domain.block]
    rule, count = CellRule.of((domain,)), len(next(iter(maps.values())).dofs)
    if mesh.is_uniform or mesh.dim != mesh.num_coordinates:
        return Cells(domain, rule, (count,), maps, with_degree=with_degree)
    kept = _nodes.setdefault(mesh, {})
    if domain.block not in kept:
        kept[domain.block] = GatherScatter(block.connectivity, mesh.num_nodes)

    def at_nodes() -> tuple[Tensor, GatherScatter, Tensor] | None:
        if mesh.version is None:  # the geometry is a function of nodes that need gradients
            return None
        return mesh.nodes.detach(), kept[domain.block], space.quadrature.geometry(domain).points

    return Cells(domain, rule, (count,), maps, Lagrange(block.degree), at_nodes, with_degree)
