"""The UNet of the papers on neural energy minimisation, in two or three dimensions, on grids of nodes."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fem.support.checks import check_choice, check_flags, check_integers, check_kind
from solvers.surrogates.lift import positions


class UNet(nn.Module):
    """Images "b c *grid" to images "b out *grid": an encoder, a decoder, and connections between equal resolutions.

    Each level is two 3ᵈ convolutions with instance norm and LeakyReLU; going down halves the grid and doubles the
    channels. Pixels are nodes: n of them become ⌈n/2⌉ by averages around every other one, and return by interpolation
    between nodes, so that 2ᵏ + 1 nodes coarsen as multigrid's do and any other size works too.

    Args:
        in_channels, out_channels: of the images.
        width: channels of the first level.
        depth: how often the grid is halved.
        dim: 2 or 3.
        max_width: channels of no level exceed this.
        coordinates: whether the position, in [0, 1] along each axis, is appended to the input as channels.
        norm: "instance", or None, which serves smooth problems better.
        norm_first: whether the first convolution is normalised too. Norms remove the scale of their input, so a network
            that sees nothing but log ν would not know its contrast.
        nonlinearity: between convolutions, LeakyReLU by default.
        activation: of the output, such as `nn.Sigmoid()`; none by default.

    The last layer computes in single precision or better, whatever `torch.autocast` says.

    Raises:
        ValueError, TypeError: settings out of range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 16,
        depth: int = 2,
        dim: int = 2,
        max_width: int | None = None,
        coordinates: bool = True,
        norm: str | None = "instance",
        norm_first: bool = False,
        nonlinearity: nn.Module | None = None,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        check_integers("UNet", in_channels=in_channels, out_channels=out_channels, width=width)
        check_integers("UNet", optional=True, max_width=max_width)
        check_integers("UNet", 0, depth=depth)
        check_choice("UNet", "dim", dim, (2, 3))
        check_choice("UNet", "norm", norm, ("instance", None))
        check_flags("UNet", coordinates=coordinates, norm_first=norm_first)
        for name, module in (("nonlinearity", nonlinearity), ("activation", activation)):
            if module is not None:
                check_kind("UNet", name, module, nn.Module, "a module such as `nn.Sigmoid()`, or None")
        self.in_channels, self.depth, self.dim, self.coordinates = in_channels, depth, dim, coordinates
        widths = [min(width * 2**k, max_width or width * 2**k) for k in range(depth + 1)]
        first = in_channels + (dim if coordinates else 0)
        between = nonlinearity or nn.LeakyReLU(0.2)
        convolution, pool = ((nn.Conv2d, nn.AvgPool2d), (nn.Conv3d, nn.AvgPool3d))[dim - 2]
        self.pool = pool(3, stride=2, padding=1, count_include_pad=False)
        self.down = nn.ModuleList(
            [
                level(dim, a, b, between, norm is not None, norm_first or k > 0)
                for k, (a, b) in enumerate(zip([first, *widths], widths, strict=False))
            ]
        )
        self.up = nn.ModuleList([level(dim, a + b, a, between, norm is not None) for a, b in pairwise(widths)])
        self.last = convolution(widths[0], out_channels, 1)
        self.activation = activation or nn.Identity()

    def forward(self, image: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b o *grid"]:
        check_kind("UNet.forward", "image", image, torch.Tensor, "a tensor of images")
        if image.ndim != self.dim + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"this network takes images (b, {self.in_channels}, {', '.join('zyx'[-self.dim :])}); got a tensor of "
                f"shape {tuple(image.shape)}."
            )
        dtype = self.last.weight.dtype
        if image.dtype != dtype and not torch.is_autocast_enabled(image.device.type):
            raise TypeError(f"this network computes in {dtype}; got images in {image.dtype}. Convert either, by `.to`.")
        size = image.shape[2:]
        if self.coordinates:
            image = torch.cat([image, positions(size, image).movedim(-1, 0).expand(len(image), -1, *size)], 1)
        # Channels side by side: convolutions are a quarter faster on CPUs, and in half precision on GPUs.
        image = image.contiguous(memory_format=(torch.channels_last, torch.channels_last_3d)[self.dim - 2])
        kept = []
        for k, block in enumerate(self.down):
            image = block(image if k == 0 else self.pool(image))
            kept.append(image)
        for block, beside in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            image = block(torch.cat([beside, refined(image, beside.shape[2:])], 1))
        with torch.autocast(image.device.type, enabled=False):
            return self.activation(self.last(image.to(self.last.weight.dtype)))


def refined(image: Float[Tensor, "b c *coarse"], size: Sequence[int]) -> Float[Tensor, "b c *grid"]:
    """Multilinear interpolation between nodes, the first and last of which stay where they are."""
    return interpolate(image, size=tuple(size), mode=("bilinear", "trilinear")[len(size) - 2], align_corners=True)


def level(
    dim: int, channels: int, width: int, between: nn.Module, norm: bool, norm_first: bool = True
) -> nn.Sequential:
    """Two convolutions with norm and nonlinearity."""
    convolution, instance = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[dim - 2]
    parts: list[nn.Module] = []
    for k, (a, b) in enumerate(((channels, width), (width, width))):
        parts.append(convolution(a, b, 3, padding=1))
        if norm and (k or norm_first):
            parts.append(instance(b, affine=True))
        parts.append(between)
    return nn.Sequential(*parts)
