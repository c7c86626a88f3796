"""One integrand of an energy or a weak form, as the user wrote it, and where it is integrated."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.forms.derivatives import observable
from fem.forms.pointwise import check_pointwise
from fem.mesh.tags import FacetTag
from fem.support.checks import Signature, check_arguments, signature

Density = Callable[..., Tensor]
KEPT = 100  # kinds of arguments that are counted


@dataclass(frozen=True, eq=False)
class Term:
    """One integrand over all cells (tag None) or over tagged facets; `linear_in_test` marks weak forms.

    `interior` ones are integrated over facets between two cells, "" all of them, and see both.

    `integrands` holds what `fem.forms.lowering` makes of it on grids, `evaluations` how often it was
    evaluated with arguments of each kind.
    """

    density: Density
    tag: FacetTag | None
    derivatives: int
    linear_in_test: bool
    interior: bool = False
    integrands: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    evaluations: dict[Hashable, int] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        kind = "form" if self.linear_in_test else "density"
        if self.interior:
            return f"interior {kind}" + (f" on {self.tag!r}" if self.tag else "")
        return kind if self.tag is None else f"boundary {kind} on {self.tag!r}"

    @property
    def arguments(self) -> list[str]:
        """What the density gets before the parameters."""
        test = ["v", "grad_v", "hess_v"][: self.derivatives + 1] if self.linear_in_test else []
        normal = ["normal", "size"] if self.interior else [] if self.tag is None else ["normal"]
        return ["x", *["u", "grad_u", "hess_u"][: self.derivatives + 1], *test, *normal]

    @cached_property
    def takes(self) -> Signature | None:
        return signature(self.density)

    def check_arguments(self, num_params: int | None = None) -> None:
        """Raise where the density cannot take its arguments and so many parameters; see `fem.support.checks`."""
        check_arguments(self.name, self.takes, self.arguments, num_params)

    def check_pointwise(self, kind: Hashable, arguments: Callable[[], tuple[list[Any], int]]) -> None:
        """Raise where the integrand is no expression at a point (`fem.forms.pointwise`).

        Arguments of one kind are tried at the first, second, fourth, eighth … time, since a density can change.
        """
        if not observable():
            return
        count = self.evaluations.get(kind, 0) + 1
        if count & (count - 1) == 0:
            check_pointwise(self.name, self.density, *arguments())  # if it raises, it will the next time too
            while len(self.evaluations) >= KEPT:
                self.evaluations.pop(next(iter(list(self.evaluations)), None), None)
        self.evaluations[kind] = count

    def check(self, value: Any, shape: tuple[int, ...]) -> Tensor:
        """What the user's expression gave, if it is one number per point, of that shape up to broadcasting.

        Raises:
            TypeError: not a tensor, complex numbers, or half precision.
            ValueError: a shape that is not one number per point.
        """
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the {self.name} must return a tensor with one number per point; got {type(value).__name__}."
            )
        if value.is_complex() or value.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(
                f"the {self.name} must return real numbers in float64 or float32; got {value.dtype}. Take `.real` or "
                "`.abs()` of complex numbers, and cast nothing to half precision."
            )
        try:
            fits = np.broadcast_shapes(tuple(value.shape), shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"the {self.name} must return one number per point, shape {shape}; got {tuple(value.shape)}. "
                "Sum over components and directions, as in `grad_u.square().sum(-1)`."
            )
        return value
