"""What a maintainer counts on in the structure: `python .ci/structure.py` ends with 1 where a count is off.

Circles of files, imports against the order of the layers in `pyproject.toml`, folders with too many files, files with
too many lines. Imports inside functions and under `TYPE_CHECKING` count like all others.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fem", "splines", "nurbs", "solvers", "segmentation")
MOST_FILES, MOST_LINES = 14, 400


def main() -> int:
    modules = {name_of(path): path for package in (*PACKAGES, "examples") for path in (ROOT / package).rglob("*.py")}
    imports = {name: set(imported(name, path, modules)) for name, path in modules.items()}
    found = {
        "circles of files": [" → ".join(c) for c in circles(imports)],
        "imports against the order": list(against_order(imports)),
        f"folders with more than {MOST_FILES} files": list(large_folders()),
        f"files with more than {MOST_LINES} lines": list(long_files()),
    }
    for what, places in found.items():
        print(f"{len(places)} {what}", *places, sep="\n    ")
    return int(any(found.values()))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(name: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of the house that a file imports; a package's own lazy names are no imports of it."""
    if path.name == "__init__.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts with more than one file (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in imports.get(v, ()):
            if w not in index:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == index[v]:
            part = stack[stack.index(v) :]
            del stack[-len(part) :]
            if len(part) > 1:
                found.append(part)

    for v in sorted(imports):
        if v not in index:
            visit(v)
    return found


def against_order(imports: dict[str, set[str]]) -> Iterator[str]:
    """Imports from a lower layer of a contract in `pyproject.toml` to a higher one, or between layers side by side."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    for contract in (c for c in settings["contracts"] if c["type"] == "layers"):
        for container in contract.get("containers", [""]):
            place = {
                f"{container}.{module.strip(' ()')}".strip("."): (-height, module)
                for height, layer in enumerate(contract["layers"])
                for module in layer.split("|")
            }
            for name, targets in imports.items():
                start = owner(name, place)
                for target in targets:
                    end = owner(target, place)
                    if start and end and start != end and place[start][0] <= place[end][0]:
                        yield f"{name} imports {target} ({contract['name']})"


def owner(module: str, place: dict[str, tuple[int, str]]) -> str | None:
    return next((layer for layer in place if module == layer or module.startswith(layer + ".")), None)


def large_folders() -> Iterator[str]:
    for package in (*PACKAGES, "examples", "tests"):
        for folder in [ROOT / package, *(ROOT / package).rglob("*")]:
            if folder.is_dir() and folder.name != "__pycache__":
                count = sum(path.suffix in (".py", ".c") for path in folder.iterdir())
                if count > MOST_FILES:
                    yield f"{folder.relative_to(ROOT)}: {count}"


def long_files() -> Iterator[str]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            lines = len(path.read_text().splitlines())
            if lines > MOST_LINES:
                yield f"{path.relative_to(ROOT)}: {lines}"


if __name__ == "__main__":
    sys.exit(main())
