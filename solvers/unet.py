"""The UNet of the papers on neural energy minimisation, in two or three dimensions."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad


class UNet(nn.Module):
    """Images "b c *grid" to images "b out *grid": an encoder, a decoder, and connections between equal resolutions.

    Each level is two 3ᵈ convolutions with instance norm and LeakyReLU; going down halves the grid and doubles the
    channels. Sizes that are not multiples of 2^depth are padded by their last values, and cropped in the end.

    Args:
        in_channels, out_channels: of the images.
        width: channels of the first level.
        depth: how often the grid is halved.
        dim: 2 or 3.
        coordinates: whether the position, in [0, 1] along each axis, is appended to the input as channels.
        norm_first: whether the first convolution is normalised too. Norms remove the scale of their input, so a network
            that sees nothing but log ν would not know its contrast.
        activation: of the output, such as `torch.sigmoid`; none by default.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 16,
        depth: int = 2,
        dim: int = 2,
        coordinates: bool = True,
        norm_first: bool = False,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        for name, value in {"in_channels": in_channels, "out_channels": out_channels, "width": width}.items():
            if value < 1:
                raise ValueError(f"`UNet({name}=...)` must be positive; got {value!r}.")
        if dim not in (2, 3) or depth < 0:
            raise ValueError(
                f"`UNet` takes images of dimension 2 or 3 and a depth of at least 0; got {dim} and {depth}."
            )
        self.in_channels, self.depth, self.dim, self.coordinates = in_channels, depth, dim, coordinates
        widths = [width * 2**k for k in range(depth + 1)]
        first = in_channels + (dim if coordinates else 0)
        convolution, pool = ((nn.Conv2d, nn.AvgPool2d), (nn.Conv3d, nn.AvgPool3d))[dim - 2]
        self.pool = pool(2)
        self.down = nn.ModuleList(
            [
                level(dim, a, b, norm_first or k > 0)
                for k, (a, b) in enumerate(zip([first, *widths], widths, strict=False))
            ]
        )
        self.up = nn.ModuleList([level(dim, a + b, a) for a, b in pairwise(widths)])
        self.last = convolution(widths[0], out_channels, 1)
        self.activation = activation or nn.Identity()

    def forward(self, image: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b o *grid"]:
        if image.ndim != self.dim + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"this network takes images (b, {self.in_channels}, {', '.join('zyx'[-self.dim :])}); got a tensor of "
                f"shape {tuple(image.shape)}."
            )
        size = image.shape[2:]
        if self.coordinates:
            image = torch.cat([image, positions(size, image).expand(len(image), -1, *size)], 1)
        multiple = 2**self.depth
        missing = [-n % multiple for n in size]
        if any(missing):
            image = pad(image, [m for n in reversed(missing) for m in (0, n)], mode="replicate")
        kept = []
        for k, block in enumerate(self.down):
            image = block(image if k == 0 else self.pool(image))
            kept.append(image)
        for block, beside in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            image = block(torch.cat([beside, interpolate(image, scale_factor=2.0, mode="nearest")], 1))
        image = self.activation(self.last(image))
        return image[(..., *(slice(0, n) for n in size))]


def level(dim: int, channels: int, width: int, norm_first: bool = True) -> nn.Sequential:
    """Two convolutions with norm and activation."""
    convolution, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[dim - 2]
    parts: list[nn.Module] = []
    for k, (a, b) in enumerate(((channels, width), (width, width))):
        parts.append(convolution(a, b, 3, padding=1))
        if k or norm_first:
            parts.append(norm(b, affine=True))
        parts.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*parts)


def positions(size: Sequence[int], like: Tensor) -> Float[Tensor, "1 d *grid"]:
    """The position of every pixel, in [0, 1] along each axis, x first."""
    lines = [torch.linspace(0, 1, n, dtype=like.dtype, device=like.device) for n in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1])[None]
