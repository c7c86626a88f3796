"""Training: it learns, resumes bit for bit, and says what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch

from segmentation import PiecewiseConstant, jaccard, predict_masks, synthetic_nuclei, train_segmentation
from solvers import UNet

pytest.importorskip("lightning")
DATA = synthetic_nuclei(12, (48, 48), objects=6)
QUIET = {"progress": False, "batch": 4}


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(1, 1, width=4, depth=2, coordinates=False, norm_first=True)


@pytest.mark.parametrize("layer", [None, PiecewiseConstant(background="components", fill_holes=True)])
def test_it_learns(layer: PiecewiseConstant | None) -> None:
    net = network()
    done = train_segmentation(net, DATA, 150, layer=layer, lr=1e-2, held_out=DATA, every=50, **QUIET)
    assert [h["step"] for h in done.history] == [50, 100, 150]
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    p = predict_masks(net, DATA.images, layer)
    assert float(jaccard(p > 0.5, DATA.masks).mean()) == pytest.approx(done.history[-1]["jaccard"])
    assert done.history[-1]["jaccard"] > 0.5
    if layer is not None:
        assert torch.equal(layer(p[:, None])[:, 0] > 0.5, p > 0.5)


def test_resumed_runs_end_the_same(tmp_path: Path) -> None:
    layer = PiecewiseConstant(min_size=2)
    options: dict[str, Any] = {"layer": layer, "every": 3, "crop": 16, **QUIET}
    whole = network()
    train_segmentation(whole, DATA, 8, **options)

    class StopError(Exception): ...

    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == 5:
                raise StopError

    with pytest.raises(StopError):
        train_segmentation(network(), DATA, 8, folder=tmp_path, trainer={"callbacks": [Stop()]}, **options)
    halted = network(1)
    train_segmentation(halted, DATA, 8, folder=tmp_path, resume=True, **options)
    for a, b in zip(whole.parameters(), halted.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"of another run: lr=0\.0003 there, 0\.1 here"):
        train_segmentation(network(), DATA, 8, folder=tmp_path, resume=True, lr=0.1, **options)
    with pytest.raises(ValueError, match="holds a run already"):
        train_segmentation(network(), DATA, 8, folder=tmp_path, resume=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"`train_segmentation\(steps=...\)` must be a positive integer; got 0"),
        ({"steps": 2, "mix": 2.0}, r"in \[0, 1\]; got 0.8 and 2.0"),
        ({"steps": 2, "clip": -1.0}, r"`train_segmentation\(clip=...\)` must be a non-negative number; got -1\.0"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_segmentation(network(), DATA, **options)


def test_losses_that_are_no_numbers() -> None:
    net = network()
    with torch.no_grad():
        net.last.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="at step 0 the loss is nan"):
        train_segmentation(net, DATA, 2, **QUIET)
