"""Weights come back as they were; whatever is not a network's safetensors file is refused and nothing changes."""

import sys

import pytest
import torch

from solvers import UNet, load_network, save_network

pytest.importorskip("safetensors")


def test_weights_return_with_what_was_said_about_them(tmp_path):
    torch.manual_seed(0)
    network, other = UNet(width=4).to(memory_format=torch.channels_last), UNet(width=4)  # pyright: ignore[reportCallIssue]
    path = save_network(network, tmp_path / "weights.safetensors", "made by a test")
    assert load_network(other, path) == "made by a test"
    image = torch.randn(1, 1, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(network(image), other(image))
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_files_that_are_refused(tmp_path):
    network, path = UNet(width=4), tmp_path / "weights.safetensors"
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_network(network, path)
    save_network(UNet(width=4), path)
    content = path.read_bytes()
    for damaged in (content[:100], content[:-1], b"", b"no numbers at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or of another kind; a safetensors file is needed"):
            load_network(network, path)
    for zipped in (True, False):
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"is a pickle .* and is refused"):
            load_network(network, path)
    for other, message in (
        (
            UNet(width=6),
            r"it has a tensor \(6, 3, 3, 3\) for `down.0.0.weight`, where this network has a tensor \(4, 3",
        ),
        (UNet(width=4, depth=3), "where this network has nothing"),
        (UNet(width=4, norm=None), "it has nothing for"),
    ):
        save_network(other, path)
        with pytest.raises(ValueError, match=message):
            load_network(network, path)
    spoilt = UNet(width=4)
    with torch.no_grad():
        spoilt.last.weight.fill_(torch.nan)
    save_network(spoilt, path)
    with pytest.raises(ValueError, match=r"not finite, in `last\.weight`"):
        load_network(network, path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = save_network(UNet(width=4), tmp_path / "weights.safetensors")
    content = path.read_bytes()
    with pytest.raises(OSError, match="cannot write"):
        save_network(UNet(width=4), tmp_path / "missing" / "weights.safetensors")
    assert path.read_bytes() == content


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    path = save_network(UNet(width=4), tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"weights in files need safetensors: pip install 'ritz\[train\]'"):
        load_network(UNet(width=4), path)
