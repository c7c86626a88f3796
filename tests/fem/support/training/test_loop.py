"""The loop on the smallest of tasks: what it adds to Lightning, and that Lightning's own does its work."""

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fem.support import training
from fem.support.training.plan import Plan, Task, Training

pytest.importorskip("lightning")
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, TQDMProgressBar


@dataclass
class Line(Task):
    """y = 2 x₀ − x₁ at points that follow from their number; `spoil` is called with the number of each batch."""

    spoil: Any = None
    place: torch.device | None = None
    drawn: list[tuple[int, int]] = field(default_factory=list)

    @property
    def device(self) -> torch.device | None:
        return self.place

    def draw(self, number: int, batch: int, part: slice) -> Tensor:
        if self.spoil is not None:
            self.spoil(number)
        self.drawn.append((number * batch + part.start, number * batch + part.stop))
        return torch.stack([torch.rand(2, generator=torch.Generator().manual_seed(i)) for i in range(*self.drawn[-1])])

    def loss(self, network: nn.Module, items: Tensor, step: int) -> tuple[Tensor, Tensor]:
        value = (network(items)[:, 0] - (2 * items[:, 0] - items[:, 1])).square().mean()
        return value, value

    def measure(self, network: nn.Module, held_out: Tensor) -> dict[str, float]:
        assert not network.training
        assert not torch.is_inference_mode_enabled()
        return {"error": float(self.loss(network, held_out, 0)[0])}


HELD_OUT = Line().draw(1000, 5, slice(0, 5))


def train(task: Task | None = None, steps: int = 7, batch: int = 2, **given: Any) -> Training:
    usual: dict[str, Any] = {"lr": 0.1, "held_out": None, "every": 3, "folder": None, "resume": True, "clip": 0.0}
    usual |= {"precision": "32-true", "devices": 1, "optimizer": None, "progress": False, "trainer": None}
    torch.manual_seed(0)
    network = given.pop("network", None) or nn.Linear(2, 1)
    return training.train(network, task or Line(), Plan("train", steps, batch, **{**usual, **given}))


def same(a: Training, b: Training) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True))


def test_it_learns_and_tells_how() -> None:
    done = train(steps=150, every=50, lr=0.3, held_out=HELD_OUT)
    assert [h["step"] for h in done.history] == [50, 100, 150]
    assert done.history[-1]["error"] < 0.1 * done.history[0]["error"]
    assert 0 < done.history[0]["seconds"] < done.history[-1]["seconds"] < done.seconds


def test_accumulated_batches_are_one_large_batch() -> None:
    many, large = Line(), Line()
    found = train(many, batch=2, trainer={"accumulate_grad_batches": 3})
    wanted = train(large, batch=6)
    for p, q in zip(found.network.parameters(), wanted.network.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert (found.steps, found.samples) == (wanted.steps, wanted.samples) == (7, 42)
    assert many.drawn == [(i, i + 2) for i in range(0, 42, 2)]
    assert large.drawn == [(i, i + 6) for i in range(0, 42, 6)]


def test_all_steps_are_taken_however_gradients_are_accumulated() -> None:
    done = train(steps=7, every=2, trainer={"callbacks": GradientAccumulationScheduler({0: 1, 1: 2})})
    assert done.steps == done.history[-1]["step"] == 7
    assert done.samples == 2 * (2 + 5 * 2)


def test_ctrl_c_leaves_the_last_checkpoint_and_the_next_one_works(tmp_path: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 5:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        train(Line(interrupt), folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not (tmp_path / "network.safetensors").exists()
    assert same(train(folder=tmp_path), train())


def test_no_checkpoint_holds_what_is_no_number(tmp_path: Path) -> None:
    """Not even one that a callback writes in the middle of an interval."""
    network = nn.Linear(2, 1)

    def spoil(number: int) -> None:
        if number == 4:
            network.bias.register_hook(lambda gradient: gradient * torch.nan)

    every_step = ModelCheckpoint(tmp_path / "all", "{step}", save_top_k=-1, every_n_train_steps=1)
    options = {"folder": tmp_path / "run", "trainer": {"callbacks": [every_step]}}
    with pytest.raises(ValueError, match="at step 5 the sum of all weights is nan: a smaller lr may help"):
        train(Line(spoil), network=network, **options)
    stored = [torch.load(path, weights_only=True) for path in tmp_path.rglob("*.ckpt")]
    assert sorted(s["global_step"] for s in stored) == [1, 2, 3, 3, 4]
    assert all(bool(w.isfinite().all()) for s in stored for w in s["state_dict"].values())


def test_logs_hold_steps_and_intervals(tmp_path: Path) -> None:
    train(folder=tmp_path, held_out=HELD_OUT)
    (metrics,) = tmp_path.glob("logs/*/metrics.csv")
    head, *rows = [line.split(",") for line in metrics.read_text().splitlines()]
    assert {"step", "loss", "error", "samples_per_second"} <= set(head)
    for name in ("loss", "error", "samples_per_second"):
        assert sum(row[head.index(name)] != "" for row in rows) == 3
    pytest.importorskip("tensorboard")
    assert list(tmp_path.glob("logs/*/events.out.tfevents*"))


def test_there_is_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    train(steps=40, every=20, progress=True, held_out=HELD_OUT)
    shown = capsys.readouterr().err
    assert "40/40" in shown
    assert all(name in shown for name in ("loss=", "error=", "samples/s="))
    train(steps=4, progress=True, trainer={"callbacks": [TQDMProgressBar()]})
    assert "samples/s=" not in "".join(capsys.readouterr())


def test_a_trainer_computes_where_the_task_is() -> None:
    with pytest.raises(
        ValueError, match=r"`train\(trainer=...\)` computes on cpu, while what it is trained on is on cu"
    ):
        train(Line(place=torch.device("cuda")), trainer={"accelerator": "cpu", "devices": 1})


def test_lightning_is_needed_when_a_training_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "fem.support.training.loop")
    with pytest.raises(ImportError, match=r"training needs lightning.*: pip install 'ritz\[train\]'"):
        train()
