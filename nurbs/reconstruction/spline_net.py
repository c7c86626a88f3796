"""A network from point clouds to control points of a spline surface.

After ParSeNet's SplineNet (Sharma et al., ECCV 2020) with the dynamic edge convolutions of DGCNN (Wang et al., 2019):

    x_i' = σ(norm(max_{j ∈ kNN(i)} W (x_i, x_j − x_i))),    neighbours in the space of the features x of that layer.

W = (W₁, W₂) acts on points, not on edges: W (x_i, x_j − x_i) = (W₁ − W₂) x_i + W₂ x_j, and the maximum over neighbours
concerns the last term alone. That is k times less work, and needs a norm that acts after the maximum, on each point.
"""

from collections.abc import Sequence
from math import pi

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from fem.reference.bspline import basis_matrix, check_dtype, uniform_knots
from fem.support.checks import check_integers, is_integer
from fem.support.portions import at_a_time
from nurbs.reconstruction.frames import check_clouds, cloud_frame, flat_grid

SLOPE = 0.2
CORRECTION_GRID = 24  # parameters per direction at which corrections look
LIMIT = 0.5  # of one correction, in half sides of the cloud: far from a surface it could run away
SCALE = 10.0  # of what they see: distances are small


@torch.no_grad()
def neighbours(x: Float[Tensor, "b m c"], k: int) -> Int64[Tensor, "b m k"]:
    """The k < m nearest other points of each point, in any order; distances are made for some rows at a time."""
    m = x.shape[1]
    x = x - x.mean(1, keepdim=True)
    square = x.square().sum(-1)[:, None]
    size, found = at_a_time(len(x) * m, x, roomy=True), []
    for start in range(0, m, size):
        rows = torch.baddbmm(square, x[:, start : start + size], x.mT, alpha=-2)  # |x_j|² − 2 x_i x_j
        rows.diagonal(start, -2, -1).fill_(torch.inf)
        found.append(rows.topk(k, -1, largest=False, sorted=False).indices)
    return torch.cat(found, 1)


class EdgeConvolution(nn.Module):
    """σ(norm(max_{j ∈ kNN(i)} W (x_i, x_j − x_i))) "b m c" for features "b m c", neighbours in their own space."""

    def __init__(self, inputs: int, outputs: int, k: int):
        super().__init__()
        self.k = k
        self.linear = nn.Linear(2 * inputs, outputs)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Float[Tensor, "b m c"]) -> Float[Tensor, "b m d"]:
        b, m, _ = x.shape
        own, difference = self.linear.weight.chunk(2, 1)
        rows = neighbours(x, self.k) + m * torch.arange(b, device=x.device)[:, None, None]
        best = largest(linear(x, difference).flatten(0, 1), rows.flatten(0, 1)).unflatten(0, (b, m))
        return leaky_relu(self.norm(linear(x, own - difference, self.linear.bias) + best), SLOPE)


def largest(x: Float[Tensor, "n c"], rows: Int64[Tensor, "m k"]) -> Float[Tensor, "m c"]:
    """max_k x[rows]: which row it is is found without a gradient, and without the m k c numbers."""
    start = torch.arange(0, rows.numel(), rows.shape[1], device=x.device)
    _, _, _, where = torch.embedding_bag(x.detach(), rows.flatten(), start, mode=2)  # 2: the maximum
    return x.gather(0, where)


class MaxPool(nn.Module):
    """max_i (A x_i + b) "b d" of features "b m c".

    Each channel depends on one point, so that the backward pass is a matter of d points instead of m d numbers.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Float[Tensor, "b m c"]) -> Float[Tensor, "b d"]:
        with torch.no_grad():
            where = linear(x, self.linear.weight).max(1).indices
        chosen = x.gather(1, where[..., None].expand(*where.shape, x.shape[-1]))
        return torch.einsum("bdc,dc->bd", chosen, self.linear.weight) + self.linear.bias


class Correction(nn.Module):
    """One look at where the surface is and where the points are: control points "b i j 3" to better ones.

    On a grid of CORRECTION_GRID² parameters, convolutions see the mean offset to the k nearest points, the mean offset
    of the points nearest to that parameter with their number, and the place. Their answer there is projected onto the
    control points. At first it is nothing.
    """

    def __init__(self, shape: tuple[int, int], k: int, width: int):
        super().__init__()
        self.k = k
        t = torch.linspace(0, 1, CORRECTION_GRID, dtype=torch.float64, device="cpu")
        for name, n in zip("uv", shape, strict=True):
            basis = basis_matrix(uniform_knots(n, 3), 3, t)[0]
            self.register_buffer(f"basis_{name}", basis.float(), persistent=False)
            self.register_buffer(f"inverse_{name}", torch.linalg.pinv(basis).float(), persistent=False)
        last = nn.Conv2d(width, 3, 3, padding=1, padding_mode="replicate")
        for p in last.parameters():
            nn.init.zeros_(p)
        self.layers = nn.Sequential(
            nn.Conv2d(11, width, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(SLOPE),
            last,
        )

    def forward(
        self, points: Float[Tensor, "b m 3"], control_points: Float[Tensor, "b i j 3"]
    ) -> Float[Tensor, "b i j 3"]:
        place = torch.einsum("ui,bijd,vj->buvd", self.basis_u, control_points, self.basis_v).flatten(1, 2)
        with torch.no_grad():
            square = points.square().sum(-1)[:, None]
            distance = torch.baddbmm(square, place, points.mT, alpha=-2)  # up to |place|²
            near = distance.topk(self.k, -1, largest=False, sorted=False).indices
            owner = (distance + place.square().sum(-1, keepdim=True)).argmin(1)[..., None]
        b, m, _ = points.shape
        rows = (near + m * torch.arange(b, device=near.device)[:, None, None]).flatten()
        ahead = points.flatten(0, 1)[rows].unflatten(0, near.shape).mean(2) - place
        ones = torch.ones_like(points[..., :1])
        sums = torch.zeros_like(torch.cat([place, place[..., :1]], -1))
        sums = sums.scatter_add(1, owner.expand(b, m, 4), torch.cat([points, ones], -1))
        count = sums[..., 3:]
        behind = torch.where(count > 0, sums[..., :3] / count.clamp(min=1) - place, 0)
        share = (count * (CORRECTION_GRID**2 / m)).sqrt()  # 1 where points are as dense as on average
        seen = torch.cat([SCALE * ahead, SCALE * behind, share, SCALE * ahead.norm(dim=-1, keepdim=True), place], -1)
        image = seen.mT.unflatten(-1, (CORRECTION_GRID, CORRECTION_GRID))
        step = LIMIT * torch.tanh(self.layers(image) / (SCALE * LIMIT))
        return control_points + torch.einsum("iu,bduv,jv->bijd", self.inverse_u, step, self.inverse_v)


class SplineNet(nn.Module):
    """Control points "b i j 3" of bicubic surfaces on clamped uniform knots for point clouds "b m 3".

    Each cloud is brought into its own frame (`cloud_frame`), where the answer is the square [−1, 1]² plus what the
    network adds; at first it adds nothing. The answer does not depend on the order of the points and follows motions,
    reflections and scalings of the cloud. The last layer gives coefficients of cosines on the control grid, weighted by
    1 / (1 + i² + j²), which makes smooth surfaces easy to reach and none impossible.

    Args:
        shape: control points per direction, 4 or more.
        k: neighbours of each point.
        widths: channels of the edge convolutions.
        features: channels of each point at the end, whose maximum over the cloud is taken.
        hidden: widths of the layers between these and the control points.
        corrections: how often the answer is compared with the points and corrected.
        width: channels of their convolutions.

    Raises:
        ValueError: a shape below 4 × 4, other settings that are no positive integers; in use, clouds of another shape,
            of k points or fewer, coordinates that are not finite, clouds whose points all coincide.
        TypeError: clouds of another dtype than the network's.
    """

    flat: Float[Tensor, "i j 3"]
    rows: Float[Tensor, "i i"]
    columns: Float[Tensor, "j j"]
    scale: Float[Tensor, "i j 1"]

    def __init__(
        self,
        shape: tuple[int, int] = (20, 20),
        k: int = 10,
        widths: Sequence[int] = (64, 64, 128, 256),
        features: int = 1024,
        hidden: Sequence[int] = (1024, 512),
        corrections: int = 2,
        width: int = 32,
    ):
        super().__init__()
        if not isinstance(shape, list | tuple) or len(shape) != 2 or not all(is_integer(n, 4) for n in shape):
            raise ValueError(f"`SplineNet(shape=...)` needs two numbers, 4 or more; got {shape!r}.")
        check_integers("SplineNet", k=k, features=features, width=width)
        check_integers("SplineNet", 0, corrections=corrections)
        for name, sizes in (("widths", widths), ("hidden", hidden)):
            if not sizes or not all(is_integer(n, 1) for n in sizes):
                raise ValueError(f"`SplineNet({name}=...)` must be positive integers, one or more; got {sizes!r}.")
        self.shape, self.k = (shape[0], shape[1]), k
        channels = [3, *widths]
        self.edges = nn.ModuleList(EdgeConvolution(c, d, k) for c, d in zip(channels, widths, strict=False))
        self.pool = MaxPool(sum(widths), features)
        inputs = features + sum(widths)
        layers: list[nn.Module] = [nn.LayerNorm(inputs), nn.LeakyReLU(SLOPE)]
        for c, d in zip([inputs, *hidden], hidden, strict=False):
            layers += [nn.Linear(c, d), nn.LayerNorm(d), nn.LeakyReLU(SLOPE)]
        last = nn.Linear(hidden[-1], 3 * shape[0] * shape[1])
        for p in last.parameters():
            nn.init.zeros_(p)
        self.head = nn.Sequential(*layers, last)
        self.corrections = nn.ModuleList(Correction(self.shape, k, width) for _ in range(corrections))
        i, j = (torch.arange(n, dtype=torch.float32, device="cpu") for n in shape)
        buffers = {
            "flat": flat_grid(self.shape, i),
            "rows": cosines(shape[0]),
            "columns": cosines(shape[1]),
            "scale": (1 / (1 + i[:, None] ** 2 + j**2))[..., None],
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, points: Float[Tensor, "b m 3"]) -> Float[Tensor, "b i j 3"]:
        return self.stages(points)[-1]

    def stages(self, points: Float[Tensor, "b m 3"]) -> list[Float[Tensor, "b i j 3"]]:
        """The answer before the corrections and after each of them.

        Training needs all: behind corrections that do their work, the last answer hardly depends on the first one.
        """
        check_dtype("points", points, self.flat)
        check_clouds(f"SplineNet(k={self.k})", points, self.k + 1)
        frame = cloud_frame(points)
        points = frame.local(points)
        levels = [points]
        for edge in self.edges:
            levels.append(edge(levels[-1]))
        x = torch.cat(levels[1:], -1)
        coefficients = self.head(torch.cat([self.pool(x), x.mean(1)], -1)).unflatten(-1, (*self.shape, 3)) * self.scale
        answers = [self.flat + torch.einsum("ik,bkld,jl->bijd", self.rows, coefficients, self.columns)]
        for correction in self.corrections:
            answers.append(correction(points, answers[-1]))
        return [frame.world(control_points) for control_points in answers]


def cosines(n: int) -> Float[Tensor, "{n} {n}"]:
    """cos(π k (i + ½) / n) for point i and frequency k."""
    i = torch.arange(n, device="cpu")
    return torch.cos(pi / n * i * (i[:, None] + 0.5)).float()
