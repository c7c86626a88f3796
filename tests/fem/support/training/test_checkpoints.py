"""Checkpoints are whole or not there, and are not taken for those of another run."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fem.support.training import checkpoints
from fem.support.training.checkpoints import read, stored_run, write


def checkpoint(network: nn.Module, **facts: int) -> dict[str, object]:
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    return {"state_dict": state, "ritz": {"facts": facts}}


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    write({"step": 1}, path)

    def half(content: object, place: Path) -> None:
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", half)
    with pytest.raises(OSError, match="cannot write"):
        write({"step": 2}, path)
    assert read(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_stored_run_is_known_by_its_facts_and_weights(tmp_path: Path) -> None:
    path, network = tmp_path / "runs" / "last.ckpt", nn.Linear(2, 1)
    assert stored_run(path, network, {"steps": 5}, resume=False) is None
    (path.parent / ".last.123.ckpt").write_bytes(b"half a checkpoint")
    write(checkpoint(network, steps=5), path)
    before = network.weight.detach().clone()
    assert stored_run(path, network, {"steps": 5}, resume=True) == path
    assert torch.equal(network.weight, before)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match="holds a run already; name another folder, or resume it"):
        stored_run(path, network, {"steps": 5}, resume=False)
    with pytest.raises(ValueError, match="of another run: steps=5 there, 6 here, lr=None there, 1 here"):
        stored_run(path, network, {"steps": 6, "lr": 1}, resume=True)
    with pytest.raises(ValueError, match=r"of another architecture: it has a tensor \(1, 2\)"):
        stored_run(path, nn.Linear(3, 1), {"steps": 5}, resume=True)
    write({"step": 1}, path)
    with pytest.raises(ValueError, match="is damaged, or no checkpoint of a training"):
        stored_run(path, network, {"steps": 5}, resume=True)
