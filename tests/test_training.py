"""What holds for every training: one result, the same arguments, and Lightning's own callbacks that do their work."""

import inspect
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import segmentation
import solvers
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
from fem.support.training.plan import Plan, Task, Training
from nurbs import RandomPatches, SplineNet, train_reconstruction
from segmentation import PiecewiseConstant, synthetic_nuclei, train_segmentation
from solvers import DiffusionProblems, ExponentialSeries, UNet, train_surrogate

pytest.importorskip("lightning")
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from nurbs.reconstruction.training import CloudTask
from segmentation.training import MaskTask
from solvers.surrogates.training import EnergyTask
from tests.problems import diffusion

V = FunctionSpace(unit_square(4, dtype=torch.float32), Lagrange(1))
ENERGY = Energy(V, diffusion, Dirichlet(V, {"left": 1.0, "right": 0.0}))
PROBLEMS = DiffusionProblems(V, ExponentialSeries(bound=1.0))
CLOUDS = cache(RandomPatches(num_points=30).__call__)
NUCLEI, LAYER = synthetic_nuclei(6, (16, 16), objects=2), PiecewiseConstant()


@dataclass(frozen=True)
class Row:
    """A training of a small network: its call, what comes between network and steps, and what is measured."""

    call: Any
    data: tuple[Any, ...]
    network: Any
    task: Task
    held_out: Any
    metric: str
    mode: str = "min"
    own: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def train(self, network: nn.Module, steps: int, **options: Any) -> Training:
        options = {"batch": 2, "every": 2, "progress": False, "held_out": self.held_out, **self.settings, **options}
        return self.call(network, *self.data, steps, **options)

    def made(self) -> nn.Module:
        torch.manual_seed(0)
        return self.network()


ROWS = {
    "surrogate": Row(
        train_surrogate,
        (ENERGY, PROBLEMS),
        lambda: UNet(width=2, depth=1, norm=None),
        EnergyTask(ENERGY, PROBLEMS, "log"),
        PROBLEMS(1000, 2),
        "l2",
        own=("network", "energy", "problems", "loss", "compile"),
    ),
    "reconstruction": Row(
        train_reconstruction,
        (CLOUDS,),
        lambda: SplineNet((4, 4), k=4, widths=(4,), features=8, hidden=(8,), corrections=1, width=4),
        CloudTask(CLOUDS, None, "chamfer", None, (8, 8), 1e-6),
        CLOUDS(1000, 1),
        "chamfer",
        own=("network", "clouds", "loss", "num_points", "target", "grid", "stiffness"),
        settings={"grid": (8, 8)},
    ),
    "segmentation": Row(
        train_segmentation,
        (NUCLEI,),
        lambda: UNet(width=2, depth=1, coordinates=False),
        MaskTask(NUCLEI, None, 0.0, 0.2, 1e-4, None, 15.0, 0),
        NUCLEI,
        "jaccard",
        "max",
        ("network", "data", "layer", "warm_up", "mix", "weight_decay", "crop", "turn", "seed"),
    ),
}


@pytest.fixture(params=list(ROWS))
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


def parameters(network: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def descent(named: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for _, p in named], 0.1)


def test_there_is_one_result() -> None:
    assert solvers.Training is segmentation.Training is Training
    for row in ROWS.values():
        done = row.train(row.made(), 3)
        assert type(done) is Training
        assert (done.steps, done.samples) == (3, 6)
        assert [set(h) for h in done.history] == [set(done.history[0])] * 2
        assert {"step", "loss", "seconds", "samples_per_second", row.metric} <= set(done.history[0])
        assert re.fullmatch(r"Training\(steps=3, samples=6, seconds=[\d.e-]+\)", repr(done))


def test_shared_arguments_have_the_same_names_defaults_and_order() -> None:
    shared = {}
    for name, row in ROWS.items():
        given = inspect.signature(row.call).parameters
        assert set(row.own) <= set(given)
        shared[name] = [(n, p.kind, None if n in ("lr", "held_out") else p.default) for n, p in given.items()]
        shared[name] = [entry for entry in shared[name] if entry[0] not in row.own]
    assert shared["surrogate"] == shared["reconstruction"] == shared["segmentation"]
    fields = [name for name in inspect.signature(Plan).parameters if name != "call"]
    assert [name for name, *_ in shared["surrogate"]] == fields


@pytest.mark.parametrize("name", ["steps", "batch", "every", "devices", "lr", "clip"])
def test_shared_errors_name_the_call(row: Row, name: str) -> None:
    must = "be a non-negative number; got -1" if name in ("lr", "clip") else "be a positive integer; got -1"
    options: dict[str, Any] = {"steps": 1, name: -1.0 if name in ("lr", "clip") else -1}
    with pytest.raises(ValueError, match=rf"`{row.call.__name__}\({name}=...\)` must {must}"):
        row.train(row.made(), **options)


def test_one_file_imports_lightning() -> None:
    root = Path(__file__).parents[1]
    pattern = re.compile(r"^\s*(from|import) (lightning|pytorch_lightning)\b", re.MULTILINE)
    files = [f for p in ("fem", "splines", "nurbs", "solvers", "segmentation") for f in (root / p).rglob("*.py")]
    found = [f.relative_to(root).as_posix() for f in files if pattern.search(f.read_text(encoding="utf-8"))]
    assert found == ["fem/support/training/loop.py"]


def test_without_lightning_each_says_what_to_install(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "fem.support.training.loop", raising=False)
    with pytest.raises(ImportError, match=r"training needs lightning.*: pip install 'ritz\[train\]'"):
        row.train(row.made(), 1)


@pytest.mark.parametrize("measured", [False, True])
def test_early_stopping_ends_a_training(row: Row, measured: bool) -> None:
    monitor = EarlyStopping(row.metric if measured else "loss", min_delta=1e9, patience=2, mode=row.mode)
    held_out = row.held_out if measured else None
    done = row.train(row.made(), 20, held_out=held_out, trainer={"callbacks": monitor})
    assert (done.steps, [h["step"] for h in done.history]) == (6, [2, 4, 6])  # the first interval, and two that waited


def test_the_best_checkpoint_is_that_of_the_best_interval(row: Row, tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, "best", monitor=row.metric, mode=row.mode)
    net = row.made()
    done = row.train(net, 7, lr=0.3, folder=tmp_path / "run", trainer={"callbacks": [best]})
    figures = [h[row.metric] for h in done.history]
    wanted = (min if row.mode == "min" else max)(figures)
    assert best.best_model_score == pytest.approx(wanted)
    stored = torch.load(best.best_model_path, weights_only=True)
    assert stored["global_step"] == done.history[figures.index(wanted)]["step"]
    net.load_state_dict({k.removeprefix("network."): v for k, v in stored["state_dict"].items()})
    assert row.train(net, 1, lr=1e-12).history[0][row.metric] == pytest.approx(wanted, rel=1e-5)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 7


def test_accumulated_gradients_are_means_over_batches(row: Row) -> None:
    """Each of them of numbers of its own."""
    options = {"optimizer": descent, "clip": 0.0, "held_out": None}
    net, other = row.made(), row.made()
    done = row.train(net, 1, trainer={"accumulate_grad_batches": 3}, **options)
    assert (done.steps, done.samples) == (1, 6)
    for number in range(3):
        value, _ = row.task.loss(other, row.task.draw(number, 2, slice(0, 2)), 0)
        (value / 3).backward()
    rate = 0.1 / row.task.warm_up_steps(1)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert q.grad is not None
        torch.testing.assert_close(p, q - rate * q.grad)
    assert row.train(row.made(), 5, trainer={"accumulate_grad_batches": 3}).samples == 30


def test_runs_with_callbacks_go_on_where_they_were(row: Row, tmp_path: Path) -> None:
    """Stopped in the middle of an interval, and after accumulated gradients."""

    class PowerCut(Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            trainer.should_stop = trainer.should_stop or trainer.global_step == 3

    options = {"accumulate_grad_batches": 2}
    row = replace(row, held_out=None)
    whole = row.train(row.made(), 7, trainer=options)
    cut = row.train(row.made(), 7, folder=tmp_path, trainer={**options, "callbacks": [PowerCut()]})
    assert (cut.steps, cut.history[-1]["step"]) == (3, 3)
    torch.manual_seed(99)
    done = row.train(row.made(), 7, folder=tmp_path, trainer=options)
    assert (done.steps, done.samples, done.history[-1]["step"]) == (7, 28, 7)
    for p, q in zip(parameters(whole.network), parameters(done.network), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(ValueError, match="of another run: accumulate_grad_batches=2 there, 1 here"):
        row.train(row.made(), 7, folder=tmp_path)


def test_configured_trainers_are_taken_as_they_are(row: Row, tmp_path: Path) -> None:
    silent: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    stop = EarlyStopping("loss", min_delta=1e9, patience=1)
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[stop], enable_checkpointing=False, **silent)
    done = row.train(row.made(), 9, folder=tmp_path, trainer=trainer)
    assert done.steps == 4
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "network.safetensors"}
    with pytest.raises(ValueError, match=r"trainer=...\)` has taken 4 steps already; make another"):
        row.train(row.made(), 9, trainer=trainer)
    with pytest.raises(ValueError, match="which has `precision` and `devices` of its own"):
        row.train(row.made(), 9, trainer=trainer, precision="bf16-mixed")
    with pytest.raises(TypeError, match="must be a dict of options or a `Trainer`; got 3"):
        row.train(row.made(), 9, trainer=3)
    with pytest.raises(ValueError, match=r"steps=...\)` says how long to train; leave max_steps out"):
        row.train(row.made(), 9, trainer={"max_steps": 3})


def test_half_precision(row: Row) -> None:
    done = row.train(row.made(), 2, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in done.network.parameters())
    plain = row.train(row.made(), 2)
    assert done.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.1)
    assert done.history[0][row.metric] == pytest.approx(plain.history[0][row.metric], rel=0.1)


SCRIPT = """
    import sys, torch
    from nurbs import RandomPatches, SplineNet, train_reconstruction
    from segmentation import PiecewiseConstant, synthetic_nuclei, train_segmentation
    from solvers import UNet

    if __name__ == "__main__":
        which, path, devices = sys.argv[1], sys.argv[2], int(sys.argv[3])
        torch.set_num_threads(1)
        torch.manual_seed(0)
        options = {"every": 3, "devices": devices, "folder": path, "progress": False}
        if which == "segmentation":
            net = UNet(width=4, depth=2, coordinates=False)
            data = synthetic_nuclei(12, (32, 32), objects=3)
            train_segmentation(net, data, 8, 4, layer=PiecewiseConstant(), held_out=data, **options)
        else:
            net = SplineNet((4, 4), k=5, widths=(8,), features=16, hidden=(16,), corrections=1, width=8).double()
            train_reconstruction(net, RandomPatches(num_points=40, dtype=torch.float64), 8, 4, **options)
"""


@pytest.mark.slow
@pytest.mark.parametrize("which", ["reconstruction", "segmentation"])
def test_two_processes_are_one(which: str, tmp_path: Path) -> None:
    script, root = tmp_path / "script.py", Path(__file__).parents[1]
    script.write_text(textwrap.dedent(SCRIPT))
    found = []
    for devices in (1, 2):
        command = [sys.executable, str(script), which, str(tmp_path / str(devices)), str(devices)]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(tmp_path / str(devices) / "last.ckpt", weights_only=True))
    one, two = found
    rtol, atol = (1e-9, 1e-12) if which == "reconstruction" else (1e-4, 1e-5)  # double precision, and single
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, rtol=rtol, atol=atol)
    losses = [[entry["loss"] for entry in run["ritz"]["history"]] for run in found]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
