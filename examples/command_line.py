"""What every example shares: a command line made from `main`'s own signature and docstring, tables, saved pictures."""

import argparse
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(main: Callable[..., Any]) -> None:
    """Call `main` with the command line's arguments: one option per keyword, its help from the `Args:` section."""
    helps = dict(re.findall(r"^\s+(\w+): (.+)$", inspect.getdoc(main) or "", re.MULTILINE))
    parser = argparse.ArgumentParser(
        description=inspect.getmodule(main).__doc__,  # type: ignore[union-attr]
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in inspect.signature(main).parameters.items():
        default = parameter.default
        many = isinstance(default, tuple)
        kind = str if default is None else type(default[0] if many else default)
        shown = " ".join(map(str, default)) if many else default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            nargs="+" if many else None,
            help=f"{helps[name]} (default: {shown})",
        )
    main(**vars(parser.parse_args()))


def save(figure: Any, out: str, name: str) -> Path:
    """Write a matplotlib figure into the folder `out`, made if need be, say where it is, and let go of it."""
    import matplotlib.pyplot as plt

    path = folder(out) / name
    figure.savefig(path, dpi=200)
    plt.close(figure)
    print(f"wrote {path}")
    return path


def write(text: str, out: str, name: str) -> Path:
    """Write a text into the folder `out`, made if need be, and say where it is."""
    path = folder(out) / name
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")
    return path


def folder(out: str) -> Path:
    """The folder, made if need be."""
    path = Path(out)
    path.mkdir(parents=True, exist_ok=True)
    return path


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table that reads well both in a terminal and as Markdown."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, tuple("-" * (w - 1) + ":" for w in widths), *rows]
    padded = [[entry.rjust(w) for entry, w in zip(line, widths, strict=True)] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)
