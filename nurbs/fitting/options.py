"""How to fit: the options of `fit_curve` and `fit_surface`, checked."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

from torch import Tensor

from fem.support.checks import is_integer, refuse, unknown_option

Progress = Callable[[int, Tensor], None]


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


RULES = {  # of `FitOptions`
    "smoothing": ("a finite number, smoothing >= 0", lambda v: is_number(v) and v >= 0),
    "projections": ("an integer, projections >= 0", lambda v: is_integer(v, 0)),
    "starts": ("an integer, starts >= 1", lambda v: is_integer(v, 1)),
    "floor": ("a number, 0 < floor < 1", lambda v: is_number(v) and 0 < v < 1),
    "max_iterations": ("an integer, max_iterations >= 0", lambda v: is_integer(v, 0)),
    "rtol": ("None or a number, 0 < rtol < 1", lambda v: v is None or (is_number(v) and 0 < v < 1)),
    "seconds": ("None or a positive number", lambda v: v is None or (is_number(v) and v > 0)),
    "progress": (
        "None or a function of the iteration and the residuals",
        lambda v: v is None or isinstance(v, bool) or callable(v),
    ),
}


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to fit.

    Args:
        smoothing: λ ≥ 0, in the units of the parameters; for fixed knots and weights. With it fewer points than control
            points will do.
        projections: how often the points are projected onto the patch and it is fitted anew; it ends when the residual
            falls by less than 0.1 %. 0 keeps the parameters; of clouds without `uv` it is 100 by default.
        starts: how many starts the search for knots has: the given knots and others drawn at random, the same in every
            run. The best end is taken.
        floor: no span of free knots becomes shorter than this times the mean one.
        max_iterations: steps for knots and weights; between two projections at most 5.
        rtol: the search ends when a step promises to reduce the residual by less than this; 1e-9 by default, 1e-5 in
            single precision.
        seconds: no iteration begins after so many; without it a fit has at most `projections` projections, and
            (`projections` + 1) · min(5, `max_iterations`) steps for knots and weights (`max_iterations` of them where
            nothing is projected).
        progress: called as `progress(iteration, residual)` with the residuals "b" of all fits; True shows a bar.
    """

    smoothing: float = 0.0
    projections: int = 0
    starts: int = 1
    floor: float = 1e-4
    max_iterations: int = 200
    rtol: float | None = None
    seconds: float | None = None
    progress: Progress | bool | None = None

    @staticmethod
    def of(call: str, also: Sequence[str], **given: Any) -> "FitOptions":
        """Checked; errors name the call, and the arguments that it has also.

        Raises:
            TypeError: an option that there is not.
            ValueError: one out of range.
        """
        for name, value in given.items():
            if name not in RULES:
                raise unknown_option(call, name, [*also, *RULES])
            wanted, fits = RULES[name]
            if not fits(value):
                refuse(call, name, wanted, value, " True shows a bar." if name == "progress" else "")
        return FitOptions(**given)

    @contextmanager
    def reporting(self, most: int) -> Iterator[Progress]:
        """What to call after each iteration, of which there are at most so many.

        Raises:
            ImportError: there is no tqdm for the bar.
        """
        if callable(self.progress):
            yield self.progress
        elif not self.progress:
            yield lambda iteration, residual: None
        else:
            try:
                from tqdm.auto import tqdm
            except ImportError as error:
                raise ImportError("a bar needs tqdm: pip install 'ritz[train]'.", name=error.name) from error
            with tqdm(total=most, unit="iteration", dynamic_ncols=True) as bar:

                def show(iteration: int, residual: Tensor) -> None:
                    bar.set_postfix({"residual": f"{float(residual.max()):.3g}"}, refresh=False)
                    bar.update(iteration - bar.n)

                yield show

    def clock(self) -> Callable[[], bool]:
        """Whether the seconds, from now on, are used up."""
        begin = time.perf_counter()
        return lambda: self.seconds is not None and time.perf_counter() - begin >= self.seconds
