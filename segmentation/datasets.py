"""Images with masks: folders of files, synthetic ones, splits, and augmentation whose chance follows from a number."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from fem.support.checks import check_floats, check_integers, check_kind, check_numbers, is_integer, shown

KINDS = ("masks", "labels")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size with what is to be found on them.

    Attributes:
        images: float32, each with mean 0 and variance 1.
        labels: objects as 1, 2, …, background as 0; where only masks are known all foreground is 1.
        names: where each comes from.
    """

    images: Float[Tensor, "b c y x"]
    labels: Int[Tensor, "b y x"]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images of shape {tuple(self.images.shape[1:])})"

    @property
    def masks(self) -> Bool[Tensor, "b y x"]:
        """The foreground."""
        return self.labels > 0

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: Int[Tensor, "i"]) -> "ImageSet":
        return ImageSet(self.images[index], self.labels[index], tuple(self.names[i] for i in index.tolist()))


def read_images(
    folder: str | Path, size: tuple[int, int] = (128, 128), channels: int = 1, corrupt: str = "warn"
) -> ImageSet:
    """Read `folder/images` with `folder/masks` or `folder/labels`, pairs of one name in any format Pillow reads.

    Masks (the layout of the Weizmann horses, of BBBC005's foreground) are white where the object is, and thresholded at
    half of their range; labels (BBBC038 and the like, 8 or 16 bits) number objects from 1 on. Everything is resized,
    images with smoothing, labels to the nearest pixel.

    Args:
        folder: holds the folders named above.
        size: (height, width) of what is returned.
        channels: 1 for grey, 3 for colours.
        corrupt: "warn" goes on without images that cannot be read, "raise" stops at the first.

    Raises:
        FileNotFoundError: a folder is missing or empty, or an image has no mask.
        ValueError: a mask has another size than its image, a file is corrupt (with "raise", or if all are), other
            options.
    """
    check_kind("read_images", "folder", folder, str | Path, "a path")
    check_size("read_images", size)
    folder = Path(folder)
    if corrupt not in ("warn", "raise") or channels not in (1, 3):
        raise ValueError(
            f'`read_images` takes corrupt="warn" or "raise" and 1 or 3 channels; got {corrupt!r} and {channels}.'
        )
    kind = next((k for k in KINDS if (folder / k).is_dir()), None)
    if kind is None or not (folder / "images").is_dir():
        raise FileNotFoundError(f"{folder} must hold the folders `images` and `masks` or `labels`.")
    images, truths = ({p.stem: p for p in sorted((folder / k).iterdir()) if p.is_file()} for k in ("images", kind))
    for name, found in (("images", images), (kind, truths)):
        if not found:
            raise FileNotFoundError(f"{folder / name} is empty.")
    alone = [p for stem, p in images.items() if stem not in truths]
    if alone:
        raise FileNotFoundError(f"{alone[0]} and {len(alone) - 1} more have no file of that name in {folder / kind}.")
    kept: list[tuple[Tensor, Tensor, str]] = []
    for stem, path in images.items():
        try:
            kept.append((*read_pair(path, truths[stem], kind, size, channels), stem))
        except OSError as error:
            message = f"{path} or {truths[stem]} cannot be read ({error})"
            if corrupt == "raise":
                raise ValueError(message) from error
            warnings.warn(f"{message}: left out", stacklevel=2)
    if not kept:
        raise ValueError(f"none of the {len(images)} images in {folder / 'images'} can be read.")
    pixels, labels, names = zip(*kept, strict=True)
    return ImageSet(normalized(torch.stack(pixels)), torch.stack(labels), names)


def check_size(call: str, size: Any) -> None:
    """Raise where the size of images is no pair of positive integers."""
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(is_integer(n, 1) for n in size):
        raise ValueError(f"`{call}(size=...)` must be (height, width) in pixels; got {shown(size)}.")


def read_pair(image: Path, truth: Path, kind: str, size: tuple[int, int], channels: int) -> tuple[Tensor, Tensor]:
    """An image "c y x" and its labels "y x"."""
    import numpy as np

    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('`read_images` needs Pillow: pip install "ritz[images]".', name=error.name) from error

    with Image.open(image) as file:
        pixels = np.asarray(file.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    with Image.open(truth) as file:
        labels = np.asarray(file if kind == "labels" or file.mode == "1" else file.convert("L"))
    if labels.ndim != 2:
        raise ValueError(f"{truth} must have one channel of labels; its shape is {labels.shape}.")
    if pixels.shape[:2] != labels.shape:
        raise ValueError(f"{image} has {pixels.shape[:2]} pixels, its mask {truth} {labels.shape}.")
    if kind == "masks":
        labels = labels > (0 if labels.dtype == bool else 127)
    x = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).movedim(-1, 0)
    y = torch.from_numpy(labels.astype(np.float64))  # exact for 16 bits and more
    x = interpolate(x[None], size, mode="bilinear", antialias=True)[0]
    return x, interpolate(y[None, None], size, mode="nearest-exact")[0, 0].long()


def normalized(images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Each with mean 0 and variance 1 over channels and pixels."""
    flat = images.flatten(1)
    middle, spread = flat.mean(1), flat.std(1).clamp(min=1e-6)
    return (images - middle[:, None, None, None]) / spread[:, None, None, None]


def split(data: ImageSet, share: float = 0.85, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """A random part to train on and the rest, the same for the same seed.

    Raises:
        ValueError: one of them would be empty.
    """
    check_kind("split", "data", data, ImageSet, "an `ImageSet`")
    check_numbers("split", "finite", share=share)
    check_integers("split", None, seed=seed)
    count = round(share * len(data))
    if not 0 < count < len(data):
        raise ValueError(f"`split(share={share})` leaves {count} of {len(data)} images: both parts need some.")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed), device="cpu")
    return data.subset(order[:count].sort().values), data.subset(order[count:].sort().values)


def augment(
    images: Float[Tensor, "b c y x"],
    masks: Bool[Tensor, "b y x"],
    generator: torch.Generator,
    crop: int | None = None,
    turn: float = 15.0,
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b h w"]]:
    """Random mirror images, turns, sizes (4/5 to 5/4), places, brightness and contrast.

    Args:
        generator: on the CPU; all chance comes from it.
        crop: pixels of the square that is cut out; the whole image without it.
        turn: largest angle in degrees; 180 also mirrors upside down.

    Raises:
        ValueError, TypeError: images and masks that do not fit each other, settings out of range.
    """
    check_kind("augment", "generator", generator, torch.Generator, "a `torch.Generator()` on the CPU")
    check_integers("augment", optional=True, crop=crop)
    check_numbers("augment", "non-negative", turn=turn)
    check_floats("augment", "images", images, "a tensor of images (b, c, y, x)")
    check_kind("augment", "masks", masks, Tensor, "a tensor of bool (b, y, x)")
    if masks.dtype != torch.bool:
        raise TypeError(f"`augment(masks=...)` must be of bool; got {masks.dtype}. `labels > 0` makes masks.")
    if images.ndim != 4 or masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"`augment` takes images (b, c, y, x) with masks (b, y, x); got shapes {tuple(images.shape)} and "
            f"{tuple(masks.shape)}."
        )
    b, _, Y, X = images.shape
    draw = lambda *shape: 2 * torch.rand(*shape, generator=generator, dtype=torch.float32, device="cpu") - 1  # noqa: E731
    angle, scale = draw(b) * turn * torch.pi / 180, 1.25 ** draw(b)
    flip = torch.where(draw(b) > 0, 1.0, -1.0)
    h, w = (Y, X) if crop is None else (min(crop, Y), min(crop, X))
    c, s = scale * angle.cos(), scale * angle.sin()
    # Pixels of the result as pixels of the image, both from their middles; then in units of half the image.
    rows = torch.stack(
        [torch.stack([flip * c * w / X, -s * h / X], 1), torch.stack([flip * s * w / Y, c * h / Y], 1)], 1
    )
    place = draw(b, 2) * torch.tensor([1 - w / X, 1 - h / Y], dtype=torch.float32, device="cpu")
    theta = torch.cat([rows, place[:, :, None]], 2).to(images)
    grid = torch.nn.functional.affine_grid(theta, [b, 1, h, w], align_corners=False)
    moved = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    found = grid_sample(masks[:, None].to(images.dtype), grid, padding_mode="reflection", align_corners=False)
    contrast, brightness = (0.2 * draw(b, 1, 1, 1).to(images) for _ in range(2))
    return moved * (1 + contrast) + brightness, found[:, 0] > 0.5


def synthetic_nuclei(count: int, size: tuple[int, int] = (128, 128), seed: int = 0, objects: int = 14) -> ImageSet:
    """Micrographs that never were: bright ellipses that touch but do not overlap, with dark spots inside, in uneven
    light with specks and noise.

    Args:
        objects: at most so many on an image.

    Raises:
        ValueError: counts or sizes that are not positive.
    """
    check_integers("synthetic_nuclei", count=count)
    check_integers("synthetic_nuclei", 0, objects=objects)
    check_integers("synthetic_nuclei", None, seed=seed)
    check_size("synthetic_nuclei", size)
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float32, device="cpu")  # noqa: E731
    Y, X = size
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32, device="cpu") / n for n in (Y, X)), indexing="ij")
    images, labels = [], []
    for _ in range(count):
        light = 0.25 + 0.15 * torch.sin(6.3 * (x * draw(()) + y * draw(()) + draw(())))
        label = torch.zeros(size, dtype=torch.int64, device="cpu")
        for k in range(1, 1 + int(objects * (0.4 + 0.6 * draw(())))):
            cy, cx, radius, angle = draw(()), draw(()), 0.04 + 0.05 * draw(()), 3.14 * draw(())
            u, v = (x - cx) * angle.cos() + (y - cy) * angle.sin(), (y - cy) * angle.cos() - (x - cx) * angle.sin()
            distance = torch.sqrt(u**2 + (v * (1 + 0.6 * draw(()))) ** 2) / radius
            inside = (distance < 1) & (label == 0)
            label[inside] = k
            spot = torch.exp(-12 * ((u / radius - 0.7 * draw(()) + 0.35) ** 2 + (v / radius) ** 2))
            light = torch.where(inside, light + (0.25 + 0.4 * draw(())) * (1 - 0.9 * spot) * (1.1 - distance), light)
        for _ in range(6):  # specks that are no nuclei
            cy, cx = draw(()), draw(())
            light = light + 0.35 * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.0002)
        images.append(light + 0.08 * torch.randn(size, generator=generator, dtype=torch.float32, device="cpu"))
        labels.append(label)
    names = tuple(f"synthetic {seed}/{i}" for i in range(count))
    return ImageSet(normalized(torch.stack(images)[:, None]), torch.stack(labels), names)


def batch_of(data: ImageSet, step: int, size: int, seed: int) -> Int[Tensor, "i"]:
    """Which images step `step` sees: each epoch all of them in a new order, by number alone."""
    start, n = step * size, len(data)
    orders: dict[int, Any] = {}
    picked: Sequence[int] = range(start, start + size)
    index = []
    for i in picked:
        epoch = i // n
        if epoch not in orders:
            orders[epoch] = torch.randperm(
                n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch), device="cpu"
            )
        index.append(int(orders[epoch][i % n]))
    return torch.tensor(index, device="cpu")
