"""Data sets: folders in several formats, what is wrong with them, splits, chance that follows from numbers."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segmentation.datasets import augment, batch_of, read_images, split, synthetic_nuclei

Image = pytest.importorskip("PIL.Image")
REAL = Path(__file__).parents[3] / "shared" / "data"


def write(folder: Path, kind: str = "masks", count: int = 3, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    """Images whose left part is object; labels count objects by hundreds."""
    for name in ("images", kind):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    truth = np.zeros(size, dtype=np.uint16)
    truth[:, :10] = 300
    truth[:5, :5] = 700
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        if kind == "masks":
            Image.fromarray(((truth > 0) * 255).astype(np.uint8)).save(folder / "masks" / f"{i}.bmp")
        else:
            Image.fromarray(truth).save(folder / "labels" / f"{i}.png")
    return truth


@pytest.mark.parametrize("channels", [1, 3])
def test_masks(tmp_path: Path, channels: int) -> None:
    truth = write(tmp_path)
    data = read_images(tmp_path, (20, 30), channels)
    assert data.images.shape == (3, channels, 20, 30)
    assert data.images.dtype == torch.float32
    assert (data.masks == torch.from_numpy(truth > 0)).all()
    assert data.names == ("0", "1", "2")
    assert data.images.flatten(1).mean(1).abs().max() < 1e-5
    assert (data.images.flatten(1).std(1) - 1).abs().max() < 1e-5
    assert read_images(tmp_path, (10, 15)).masks[0, :, :5].all()


def test_labels_of_sixteen_bits(tmp_path: Path) -> None:
    truth = write(tmp_path, "labels")
    data = read_images(tmp_path, (20, 30))
    assert (data.labels == torch.from_numpy(truth.astype(np.int64))).all()
    assert set(read_images(tmp_path, (7, 9)).labels.unique().tolist()) == {0, 300, 700}


def test_what_is_wrong_with_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold the folders `images` and `masks` or `labels`"):
        read_images(tmp_path)
    write(tmp_path)
    with pytest.raises(ValueError, match="got 'ignore' and 1"):
        read_images(tmp_path, corrupt="ignore")
    (tmp_path / "masks" / "1.bmp").rename(tmp_path / "masks" / "other.bmp")
    with pytest.raises(FileNotFoundError, match=r"1\.png and 0 more have no file of that name"):
        read_images(tmp_path)
    (tmp_path / "masks" / "other.bmp").rename(tmp_path / "masks" / "1.bmp")
    (tmp_path / "images" / "2.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"2\.png .* cannot be read .* left out"):
        assert len(read_images(tmp_path)) == 2
    with pytest.raises(ValueError, match=r"2\.png .* cannot be read"):
        read_images(tmp_path, corrupt="raise")
    Image.new("L", (5, 5)).save(tmp_path / "masks" / "0.bmp")
    with pytest.raises(ValueError, match=r"0\.png has \(20, 30\) pixels, its mask .*0\.bmp \(5, 5\)"):
        read_images(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"masks is empty"):
        read_images(tmp_path)


def test_nothing_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, count=1)
    (tmp_path / "images" / "0.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="none of the 1 images"):
        read_images(tmp_path)


def test_split_and_batches() -> None:
    data = synthetic_nuclei(20, (16, 16))
    one, two = split(data, 0.85, seed=3)
    assert len(one) == 17
    assert set(one.names) | set(two.names) == set(data.names)
    assert split(data, 0.85, seed=3)[0].names == one.names != split(data, 0.85, seed=4)[0].names
    with pytest.raises(ValueError, match="leaves 20 of 20"):
        split(data, 1.0)
    seen = torch.cat([batch_of(data, step, 8, seed=1) for step in range(5)])
    assert sorted(seen[:20].tolist()) == sorted(seen[20:].tolist()) == list(range(20))
    assert torch.equal(batch_of(data, 3, 8, seed=1), seen[24:32])


def test_augmentation_moves_image_and_mask_alike() -> None:
    data = synthetic_nuclei(6, (48, 48))
    images = data.masks[:, None].float()
    a, m = augment(images, data.masks, torch.Generator().manual_seed(0), turn=180)
    b, n = augment(images, data.masks, torch.Generator().manual_seed(0), turn=180)
    assert torch.equal(a, b)
    assert torch.equal(m, n)
    middle = (a.flatten(1).max(1).values + a.flatten(1).min(1).values)[:, None, None] / 2
    assert ((a[:, 0] > middle) == m).float().mean() > 0.99
    c, k = augment(images, data.masks, torch.Generator().manual_seed(0), crop=32)
    assert c.shape == (6, 1, 32, 32)
    assert k.shape == (6, 32, 32)


def test_synthetic_nuclei() -> None:
    data = synthetic_nuclei(4, (64, 64), seed=5)
    assert torch.equal(data.images, synthetic_nuclei(4, (64, 64), seed=5).images)
    assert (data.labels.flatten(1).max(1).values >= 4).all()
    inside = torch.stack([x[0][m].mean() - x[0][~m].mean() for x, m in zip(data.images, data.masks, strict=True)])
    assert (inside > 0).all()


@pytest.mark.skipif(not REAL.exists(), reason="needs the real data sets")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("weizmann_horse", 328), ("bbbc038", 664)])
def test_real_data(name: str, count: int) -> None:
    data = read_images(REAL / name, (64, 64), corrupt="raise")
    assert len(data) == count
    assert 0.05 < data.masks.float().mean() < 0.5


def test_sets_are_shown_in_one_line() -> None:
    assert repr(synthetic_nuclei(2, (16, 24))) == "ImageSet(2 images of shape (1, 16, 24))"


def test_a_missing_pillow_is_named_with_the_extra(tmp_path, monkeypatch) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "ritz\[images\]"'):
        read_images(tmp_path)
