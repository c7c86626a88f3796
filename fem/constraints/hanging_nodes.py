"""Continuity across hanging nodes, as ties."""

import torch
from torch import Tensor

from fem.constraints.ties import Ties, held_by_both
from fem.forms.constraints import Dirichlet
from fem.space.facets.hanging import followers
from fem.space.space import AnySpace, Space
from fem.support.checks import check_kind, shown


class HangingTies(Ties):
    """Ties of nodes that hang on larger cells; see `hanging_nodes`."""

    def holding(self, dirichlet: Dirichlet) -> Ties:
        """A node that hangs on a prescribed edge stays between its masters, which are prescribed with it.

        Raises:
            ValueError: one is prescribed and what it follows is not.
        """
        dirichlet = held_by_both(self.held, dirichlet)
        fixed = dirichlet.fixed.flatten()
        wrong = fixed[self.slaves[self.row]] & ~fixed[self.column]
        if bool(wrong.any()):
            k = int(torch.nonzero(wrong)[0])
            raise ValueError(
                f"dof {int(self.slaves[self.row[k]])} hangs on others and is prescribed, but dof "
                f"{int(self.column[k])}, which it follows, is free; prescribe whole facets of the larger cell, or "
                "nodes that do not hang."
            )
        return self.beside(dirichlet)


def hanging_nodes(space: AnySpace) -> Ties:
    """Continuity over a mesh made with `hanging=True`: nodes of small cells on a larger one have the values that its
    polynomials have there, `hanging_nodes(V) & Dirichlet(V, {...})`.

    Args:
        space: Lagrange, `Mini` or `Serendipity`, or a mixed space, of which such fields are tied.

    Raises:
        ValueError: a mesh that says nothing of hanging nodes, whose nodes need gradients, or a space without nodes.
    """
    check_kind("hanging_nodes", "space", space, Space, "a `FunctionSpace` or `MixedSpace`")
    if space.mesh.topology.hanging is None:
        raise ValueError(
            "`hanging_nodes` is for meshes whose nodes may hang, `Mesh(..., hanging=True)`; this mesh has none that "
            "were looked for."
        )
    if space.mesh.version is None:
        raise ValueError("`hanging_nodes` has no derivatives in the nodes of the mesh; detach them.")
    nodal = [field.is_nodal and field.continuity >= 0 for field in space.fields]
    if not any(nodal):
        raise ValueError(f"`hanging_nodes` ties continuous functions with nodes, as Lagrange's; got {shown(space)}.")
    parts, start, count = [], 0, 0
    for field, tied in zip(space.fields, nodal, strict=True):
        if tied:
            ties, c = followers(field), field.components or 1
            each = torch.arange(c, device=space.device)
            spread = lambda numbers, c=c, each=each: (numbers[:, None] * c + each).flatten()  # noqa: E731
            coefficient: Tensor = ties.coefficient.repeat_interleave(c)
            parts.append(
                (start + spread(ties.nodes), count + spread(ties.row), start + spread(ties.column), coefficient)
            )
            count += len(ties.nodes) * c
        start += field.num_dofs
    slaves, row, column, coefficient = (torch.cat(given) for given in zip(*parts, strict=True))
    return HangingTies.of(space, slaves, row, column, coefficient)
