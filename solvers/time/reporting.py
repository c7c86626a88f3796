"""What is told while an evolution runs: a bar of progress, files for ParaView, or whatever a callable does with it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from fem.output.vtk import TimeSeries, checked_path
from fem.space.space import AnySpace, FunctionSpace
from fem.support.checks import check_callable

Output = str | os.PathLike[str] | Callable[..., Any] | None
Report = Callable[[float, tuple[Tensor, ...]], None]


def output_of(space: AnySpace, output: Output) -> Report:
    """What is done with u (and u′) at each time that is kept."""
    if output is None:
        return lambda time, parts: None
    if not isinstance(output, str | os.PathLike):
        call: Any = output
        check_callable("evolve", "output", output, "a path that ends in .pvd, or a callable of (t, u)")
        return lambda time, parts: call(time, *[part.detach() for part in parts])
    series, single = TimeSeries(checked_path(output, ".pvd"), space), isinstance(space, FunctionSpace)

    def write(time: float, parts: tuple[Tensor, ...]) -> None:
        fields = {}
        for name, dofs in zip(("u", "velocity"), parts, strict=False):
            for i, (field, own) in enumerate(zip(space.fields, space.split(dofs.detach()), strict=True)):
                fields[name if single else f"{name} {i}"] = field.function(own)
        series.write(time, fields)

    return write


@contextmanager
def progress_of(shown: bool, first: float, last: float) -> Iterator[Callable[[float], None]]:
    """A bar that is told the time, by tqdm or rich, whichever is installed."""
    if not shown:
        yield lambda time: None
    elif find_spec("tqdm"):
        with import_module("tqdm").tqdm(
            total=last - first, bar_format="{l_bar}{bar}| t = {n:.4g} of {total:.4g}"
        ) as bar:

            def move(time: float) -> None:
                bar.update(time - first - bar.n)

            yield move
    elif find_spec("rich"):
        with import_module("rich.progress").Progress() as bars:
            task = bars.add_task("evolve", total=last - first)
            yield lambda time: bars.update(task, completed=time - first)
    else:
        raise ImportError("`evolve(progress=True)` needs tqdm or rich: pip install tqdm.")
