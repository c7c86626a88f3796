"""Values of functions along straight lines, as numbers and as curves."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.space.field import Function
from fem.space.space import FunctionSpace
from fem.support.checks import check_integers, check_kind, shown
from fem.support.modes import outside_modes

Point = Sequence[float] | Tensor


@outside_modes
def values_along(
    V: FunctionSpace, u: Tensor | Function, start: Point, end: Point, count: int = 201, outside: float | str = math.nan
) -> tuple[Float[Tensor, "m"], Tensor]:
    """Distances "m" from the start and values "*b m" or "*b m c" of u at equal steps along a line, ends included.

    Differentiable in u, the ends and the nodes.

    Args:
        V: the space of u.
        u: dofs on V, or a field `W.function(values)`.
        start, end: points "d".
        count: how many points, two at least.
        outside: as for `V.evaluate`: NaN by default where the line leaves the mesh.

    Raises:
        ValueError: ends that are no two different points.
    """
    check_kind("values_along", "V", V, FunctionSpace, "a `FunctionSpace`")
    check_integers("values_along", 2, count=count)
    space, values = (u.space, u.values) if isinstance(u, Function) else (V, u)
    ends = [torch.as_tensor(p, dtype=V.dtype, device=V.device) for p in (start, end)]
    if any(tuple(p.shape) != (V.mesh.num_coordinates,) for p in ends) or bool((ends[0] == ends[1]).all()):
        raise ValueError(
            f"`values_along(start=..., end=...)` must be two points of {V.mesh.num_coordinates} coordinates, not the "
            f"same; got {shown(start)} and {shown(end)}."
        )
    t = torch.linspace(0, 1, count, dtype=V.dtype, device=V.device)
    points = torch.lerp(ends[0], ends[1], t[:, None])
    return t * (ends[1] - ends[0]).norm(), space.evaluate(values, points, outside)


@outside_modes
def plot_line(
    V: FunctionSpace,
    u: Tensor | Function,
    start: Point,
    end: Point,
    ax: Any = None,
    *,
    count: int = 201,
    label: str | None = None,
) -> Any:
    """Draw u along a line over the distance from its start, a curve for each component; returns the matplotlib Axes.

    Curves have gaps where the line leaves the mesh; drawn into the same `ax`, several fields or meshes compare.

    Raises:
        ValueError: as for `values_along`; a batch of fields, or a line that nowhere meets the mesh.
    """
    distance, values = values_along(V, u, start, end, count)
    space = u.space if isinstance(u, Function) else V
    if values.ndim != 1 + len(space.value_shape):
        raise ValueError(f"`plot_line` draws one field; got a batch of shape {tuple(values.shape[:-1])}: pick an item.")
    if not bool(torch.isfinite(values).any()):
        raise ValueError(
            f"`plot_line` has nothing to draw: no value between {shown(start)} and {shown(end)} is finite."
        )
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(layout="constrained")[1]
        ax.set_xlabel("distance")
        ax.spines[["top", "right"]].set_visible(False)
    columns = values.detach().reshape(count, -1).cpu().numpy()
    for c, column in enumerate(columns.T):
        name = label if columns.shape[1] == 1 else f"{label or 'u'}[{c}]"
        ax.plot(distance.detach().cpu().numpy(), column, linewidth=1.8, label=name)
    if label is not None or columns.shape[1] > 1:
        ax.legend(frameon=False)
    ax.margins(x=0.02)
    return ax
