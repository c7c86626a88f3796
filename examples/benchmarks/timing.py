"""What benchmarks share: runs in turns and their medians, the machine's name and bandwidth, processes of their own.

Whatever disturbs the machine disturbs all in turns alike, and medians forget it; ratios then mean something, where
seconds depend on the machine and on its other work.
"""

import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.command_line import markdown

ROOT = Path(__file__).parents[2]


class Clock:
    """Seconds since it was last read; `lap` keeps them under a name."""

    def __init__(self):
        self.start = time.perf_counter()
        self.laps: dict[str, float] = {}

    def read(self) -> float:
        start, self.start = self.start, time.perf_counter()
        return self.start - start

    def lap(self, name: str) -> None:
        self.laps[name] = self.read()


@dataclass(frozen=True)
class Runs:
    """Median seconds of several runs, of their laps too, and what the last one returned."""

    seconds: float
    laps: dict[str, float]
    result: Any


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def interleaved(functions: Mapping[str, Callable[[Clock], Any]], repeats: int) -> dict[str, Runs]:
    """Call each function once to warm up, then all in turns, `repeats` times over."""
    runs: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in functions}
    results: dict[str, Any] = {}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            clock = Clock()
            results.pop(name, None)  # two results at a time may not fit
            seconds, results[name] = timed(lambda function=function, clock=clock: function(clock))
            if turn:
                runs[name].append((seconds, clock.laps))
    found = {}
    for name, times in runs.items():
        laps = {lap: statistics.median(laps[lap] for _, laps in times) for lap in times[0][1]}
        found[name] = Runs(statistics.median(seconds for seconds, _ in times), laps, results[name])
    return found


def adder(megabytes: int) -> tuple[Callable[[Clock], Tensor], int]:
    """c ← a + b on three arrays of that size, far larger than the caches, and the bytes that it moves."""
    a, b, c = (torch.ones(megabytes * 2**18) for _ in range(3))
    return lambda clock: torch.add(a, b, out=c), 3 * c.nbytes


def peer(name: str) -> Any:
    """The module, or None and a printed line where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


def use_threads(threads: int) -> None:
    """So many threads for PyTorch, all cores for 0."""
    if threads:
        torch.set_num_threads(threads)


def hardware() -> str:
    """The machine in words."""
    names = [line.split(":")[1].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}, Python {platform.python_version()}"
    )


def table(title: str, head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    """Print and return a table under its title and the machine it was measured on."""
    text = f"{title}\n({hardware()})\n\n{markdown(head, [tuple(map(str, row)) for row in rows])}"
    print(text, flush=True)
    return text


def seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def alone(function: Callable[..., dict[str, Any]], environment: Mapping[str, str] | None = None, **arguments: Any):
    """What a function of numbers and words returns in a process of its own.

    Raises:
        subprocess.CalledProcessError: the process failed; its messages are printed.
    """
    module, name = function.__module__, function.__name__
    if module == "__main__":
        module = ".".join(Path(sys.modules[module].__file__ or "").relative_to(ROOT).with_suffix("").parts)
    code = f"import json, sys\nfrom {module} import {name}\nprint(json.dumps({name}(**json.loads(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    for line in lines_of("/proc/self/status"):  # elsewhere `getrusage`, which on Linux may count the parent's
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def available_memory() -> float:
    """Bytes that programs may still take; infinite where nothing tells."""
    for line in lines_of("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return 1024 * int(line.split()[1])
    return float("inf")


def lines_of(path: str) -> list[str]:
    """The lines of a file of the operating system, none where it has no such file."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
