"""NURBS surfaces: one on a fine grid, and many with gradients, beside the packages people use, in the same run.

One bicubic rational surface of 8 × 8 control points on a grid, in double precision: ritz, SciPy's `NdBSpline` on
homogeneous coordinates, geomdl where it is installed. Then a batch of surfaces of 20 × 20 control points, each with
knots of its own, forward and backward: ritz with gradients in control points, weights and knots; a plain dense product
of precomputed basis matrices with gradients in control points and weights; NURBSDiff where its checkout is on the path
(single precision, and gradients in homogeneous control points alone, which is what it offers). Last, what a backward
pass keeps per point at scattered parameters, for few and for many control points. Claims: the values agree; a backward
pass keeps O(degree + 1) numbers per point and direction, whatever the number of control points; and the ratios printed,
which depend on the machine.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from scipy.interpolate import NdBSpline
from torch import Tensor

from examples.benchmarks.timing import interleaved, seconds, table, use_threads
from examples.command_line import run, write
from fem.reference.bspline import basis_matrix
from nurbs import Surface

PEER = "NURBSDiff.surf_eval"


def main(
    grid: int = 256,
    items: int = 32,
    points: int = 20,
    repeats: int = 7,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Evaluate and differentiate in turns, and compare.

    Args:
        grid: parameters per direction
        items: surfaces in the batch
        points: control points per direction of the surfaces in the batch
        repeats: evaluations of each kind
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        "one ritz", "one SciPy", "one geomdl", "float64 ritz", "float64 dense", "float32 ritz", "float32 dense",
        "float32 NURBSDiff" in seconds where measured; "one difference" from SciPy, "float64 difference" from the dense
        product, relative to the largest value; "bytes few" and "bytes many" kept per scattered point with 8² and 64²
        control points.
    """
    use_threads(threads)
    figures: dict[str, float] = {}
    rows = []
    found = interleaved(single(grid), repeats)
    figures |= {f"one {name}": result.seconds for name, result in found.items()}
    reference = torch.from_numpy(found["SciPy"].result)
    figures["one difference"] = float((found["ritz"].result - reference).abs().max() / reference.abs().max())
    rows += [("one 8 × 8, float64", name, seconds(r.seconds), ratio(r, found["ritz"])) for name, r in found.items()]
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        found = interleaved(batch(items, points, grid, dtype), repeats)
        figures |= {f"{name} {kind}": result.seconds for kind, result in found.items()}
        values = [found[kind].result[0] for kind in ("ritz", "dense")]
        figures[f"{name} difference"] = float((values[0] - values[1]).abs().max() / values[1].abs().max())
        label = f"{items} of {points} × {points}, {name}, forward and backward"
        rows += [(label, kind, seconds(r.seconds), ratio(r, found["ritz"])) for kind, r in found.items()]
    figures |= {"bytes few": kept(8), "bytes many": kept(64)}
    rows += [
        (f"kept for backward, {n} × {n} control points", "ritz", f"{figures[f'bytes {k}']:.0f} B a point", "")
        for n, k in ((8, "few"), (64, "many"))
    ]
    text = table(f"NURBS surfaces on {grid} × {grid} parameters", ("what", "by", "median", "over ritz"), rows)
    if out is not None:
        write(text, out, "nurbs.md")
    return figures


def ratio(result: Any, ritz: Any) -> str:
    return f"{result.seconds / ritz.seconds:.2f}"


def draw(batch: tuple[int, ...], n: int, dtype: torch.dtype) -> Surface:
    """A bicubic rational surface of n × n control points on random knots."""
    generator = torch.Generator().manual_seed(0)
    knots = []
    for _ in range(2):
        inner = torch.rand(*batch, n - 4, generator=generator, dtype=torch.float64).sort(-1).values
        ends = torch.ones(*batch, 4, dtype=torch.float64)
        knots.append(torch.cat([0 * ends, inner, ends], -1))
    points = torch.randn(*batch, n, n, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(*batch, n, n, generator=generator, dtype=torch.float64) + 0.5
    return Surface(points, weights, knots).to(dtype)


def single(grid: int) -> dict[str, Callable]:
    surface = draw((), 8, torch.float64)
    u = torch.linspace(0, 1, grid, dtype=torch.float64)
    places = torch.stack(torch.meshgrid(u, u, indexing="ij"), -1).numpy()
    spline = NdBSpline(tuple(t.numpy() for t in surface.knots), surface.homogeneous.numpy(), 3)

    def scipy(clock: Any) -> Any:
        values = spline(places)
        return values[..., :-1] / values[..., -1:]

    calls: dict[str, Callable] = {"ritz": lambda clock: surface(u, u), "SciPy": scipy}
    if find_spec("geomdl"):
        from geomdl import NURBS

        peer = NURBS.Surface()
        peer.degree_u = peer.degree_v = 3
        peer.set_ctrlpts(surface.homogeneous.flatten(0, 1).tolist(), 8, 8)
        peer.knotvector_u, peer.knotvector_v = (t.tolist() for t in surface.knots)
        peer.sample_size = grid

        def geomdl(clock: Any) -> Any:
            peer.evaluate()
            return peer.evalpts

        calls["geomdl"] = geomdl
    return calls


def batch(items: int, n: int, grid: int, dtype: torch.dtype) -> dict[str, Callable]:
    surface = draw((items,), n, dtype)
    u = torch.linspace(0, 1, grid, dtype=dtype)
    inputs = [
        x.requires_grad_() for x in (surface.control_points, surface.homogeneous[..., -1].clone(), *surface.knots)
    ]
    P, w = inputs[:2]
    Bu, Bv = (basis_matrix(t.detach(), 3, u)[:, 0] for t in surface.knots)
    direction = torch.randn(items, grid, grid, 3, generator=torch.Generator().manual_seed(1)).to(dtype)

    def differentiated(values: Tensor, by: list[Tensor]) -> tuple[Tensor, ...]:
        return values.detach(), *torch.autograd.grad((values * direction).sum(), by)

    def ritz(clock: Any) -> tuple[Tensor, ...]:
        return differentiated(Surface(P, w, inputs[2:])(u, u), inputs)

    def dense(clock: Any) -> tuple[Tensor, ...]:
        H = torch.einsum("bui,bijd,bvj->buvd", Bu, torch.cat([P * w[..., None], w[..., None]], -1), Bv)
        return differentiated(H[..., :-1] / H[..., -1:], [P, w])

    calls: dict[str, Callable] = {"ritz": ritz, "dense": dense}
    if dtype == torch.float32 and find_spec(PEER.split(".")[0]):
        from NURBSDiff.surf_eval import SurfEval  # pyright: ignore[reportMissingImports]

        layer = SurfEval(n - 1, n - 1, 3, 3, 3, out_dim_u=grid, out_dim_v=grid)  # on uniform knots
        H = surface.homogeneous.detach().requires_grad_()
        calls["NURBSDiff"] = lambda clock: differentiated(layer(H), [H])
    return calls


def kept(n: int, count: int = 20_000) -> float:
    """Bytes of tensors that a backward pass from scattered points holds on to, beyond its inputs, per point."""
    surface = draw((), n, torch.float64)
    inputs = [x.requires_grad_() for x in (surface.control_points, *surface.knots)]
    places = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        values = surface.at(places)
    for tensor in (*inputs, places, values):
        held.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(held.values()) / count


if __name__ == "__main__":
    run(main)
