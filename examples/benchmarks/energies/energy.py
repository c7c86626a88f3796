"""An energy and its gradient, beside the time that memory needs to read and write them, and beside convolutions.

    J(u) = ∫ ½ν|∇u|² − u dx    and    ∂J/∂u

for a batch of nodal fields u and ν on a grid, in single precision. "Floor" is the time to read u and ν and write the
gradient once, at the bandwidth of c ← a + b in the same run on arrays larger than the caches. The peers (for linear
elements alone) are what one writes by hand in PyTorch: fixed 2 × 2 kernels that interpolate u, its slopes and ν at a
Gauss point, one convolution after another or all as the channels of one, differentiated by autograd. Runs are
interleaved, and medians compared. Claim: all agree; and the ratios printed, which depend on the machine.
"""

import tempfile
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv3d

from examples.benchmarks.timing import Clock, adder, alone, interleaved, seconds, table, timed, use_threads
from examples.command_line import run, write
from fem import Energy, FunctionSpace, Lagrange, compilation, unit_cube, unit_square

Gradient = tuple[Tensor, Tensor]
HEAD = ("", "time", "× floor", "× ritz", "difference")


def density(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1) - u


def space(dim: int, nodes: int, degree: int) -> FunctionSpace:
    """Lagrange elements on a grid of so many nodes in each direction, or a few less where the degree does not fit."""
    mesh = (unit_square if dim == 2 else unit_cube)((nodes - 1) // degree, dtype=torch.float32)
    return FunctionSpace(mesh, Lagrange(degree))


def fields(V: FunctionSpace, items: int) -> tuple[Tensor, Tensor]:
    """Random u and positive ν."""
    generator = torch.Generator().manual_seed(0)
    u, nu = (torch.rand(items, *V.shape, generator=generator) for _ in range(2))
    return u, 0.5 + nu


def with_gradient(energy: Callable[[Tensor], Tensor], u: Tensor) -> Gradient:
    """J "b" and ∂J/∂u "b n"."""
    u = u.detach().requires_grad_()
    value = energy(u)
    value.sum().backward()
    assert u.grad is not None
    return value.detach(), u.grad


def compiled(when: str, energy: Callable[[Tensor], Tensor], u: Tensor) -> Gradient:
    with compilation(when):
        return with_gradient(energy, u)


def gauss_kernels(dim: int, cells: int) -> Tensor:
    """What interpolates value and slopes at each Gauss point of a cell from its corners: "q s 2 … 2"."""
    points = [0.5 - 12**-0.5, 0.5 + 12**-0.5]
    value = [torch.tensor([1 - p, p]) for p in points]
    slope = torch.tensor([-1.0, 1.0]) * cells
    letters = "xyz"[:dim]
    outer = f"{','.join(letters)}->{letters}"
    found = []
    for q in product(range(2), repeat=dim):
        lines = [value[k] for k in q]
        slots = [lines, *[[slope if axis == k else line for axis, line in enumerate(lines)] for k in range(dim)]]
        found.append(torch.stack([torch.einsum(outer, *slot) for slot in slots]))
    return torch.stack(found)


def convolutions(V: FunctionSpace, nu: Tensor, at_once: bool) -> Callable[[Tensor], Tensor]:
    """J "b" of nodal values by one convolution per Gauss point and slot, or with all of them as channels of one."""
    assert V.mesh.grid is not None
    dim, cells = V.mesh.dim, V.mesh.grid[0]
    convolve, kernels = (conv2d, conv3d)[dim - 2], gauss_kernels(dim, cells).to(nu)
    weight = (0.5 / cells) ** dim
    nu = V.to_grid(nu)[:, None]

    def one_by_one(u: Tensor) -> Tensor:
        image, total = V.to_grid(u)[:, None], u.new_zeros(len(u))
        for point in kernels[:, :, None, None]:
            value, *slopes = (convolve(image, kernel) for kernel in point)
            square = torch.stack(slopes).square().sum(0)
            total = total + (0.5 * convolve(nu, point[0]) * square - value).flatten(1).sum(1)
        return weight * total

    def all_at_once(u: Tensor) -> Tensor:
        at_points = convolve(V.to_grid(u)[:, None], kernels.flatten(0, 1)[:, None])
        value, *slopes = at_points.unflatten(1, kernels.shape[:2]).unbind(2)
        square = torch.stack(slopes).square().sum(0)
        return weight * (0.5 * convolve(nu, kernels[:, :1]) * square - value).flatten(1).sum(1)

    return all_at_once if at_once else one_by_one


def first_call(dim: int, degree: int, items: int, nodes: int, threads: int) -> dict[str, float]:
    """Seconds of the first call that compiles, and of the second."""
    use_threads(threads)
    V = space(dim, nodes, degree)
    u, nu = fields(V, items)
    energy, parameter = Energy(V, density), V.function(nu)
    first, second = (timed(lambda: compiled("always", lambda v: energy(v, parameter), u))[0] for _ in range(2))
    return {"first": first, "second": second}


def difference(found: Gradient, wanted: Gradient) -> float:
    """The largest difference of two energies or gradients, relative to the largest of their kind."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


def main(
    dim: int = 2,
    degree: int = 1,
    items: int = 32,
    nodes: int = 257,
    repeats: int = 15,
    megabytes: int = 64,
    policy: str = "always",
    first_calls: int = 0,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Evaluate in turns and compare.

    Args:
        dim: 2 or 3
        degree: polynomial degree of u and ν, 1 to 3
        items: how many fields at once
        nodes: nodes in each direction
        repeats: evaluations of each kind
        megabytes: size of each of the three arrays that measure the bandwidth
        policy: when the first row's kernels are compiled, "always" or, where no compiler is installed, "never"
        first_calls: 1 measures the first call in new processes too, without and with kernels that an earlier one left
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        "floor", "ritz", "eager", "one by one" and "all at once" in seconds, "difference …" of each from "ritz",
        "bandwidth" in bytes per second, "first call cold" and "first call warm" if asked for.
    """
    use_threads(threads)
    V = space(dim, nodes, degree)
    u, nu = fields(V, items)
    energy, parameter = Energy(V, density), V.function(nu)
    add, moved = adder(megabytes)
    functions: dict[str, Callable[[Clock], Gradient | Tensor]] = {
        "copy": add,
        "ritz": lambda clock: compiled(policy, lambda v: energy(v, parameter), u),
        "eager": lambda clock: compiled("never", lambda v: energy(v, parameter), u),
    }
    if degree == 1:
        for name, at_once in (("one by one", False), ("all at once", True)):
            J = convolutions(V, nu, at_once)
            functions[name] = lambda clock, J=J: with_gradient(J, u)
    runs = interleaved(functions, repeats)
    bandwidth = moved / runs.pop("copy").seconds
    floor = 3 * u.nbytes / bandwidth
    figures = {"bandwidth": bandwidth, "floor": floor}
    rows = [("floor", seconds(floor), "1.0", "", "")]
    for name, found in runs.items():
        figures |= {name: found.seconds, f"difference {name}": difference(found.result, runs["ritz"].result)}
        ratios = (f"{found.seconds / floor:.1f}", f"{found.seconds / runs['ritz'].seconds:.1f}")
        rows.append((name, seconds(found.seconds), *ratios, f"{figures[f'difference {name}']:.0e}"))
    title = f"J and ∂J/∂u, {items} × {round(V.num_dofs ** (1 / dim))}{'²³'[dim - 2]} nodes, degree {degree}, float32; "
    title += f"{bandwidth / 1e9:.1f} GB/s"
    if first_calls:
        with tempfile.TemporaryDirectory() as cache:
            for name in ("cold", "warm"):
                environment = {"RITZ_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
                arguments = {"dim": dim, "degree": degree, "items": items, "nodes": nodes, "threads": threads}
                figures[f"first call {name}"] = alone(first_call, environment, **arguments)["first"]
                rows.append((f"first call, {name}", seconds(figures[f"first call {name}"]), "", "", ""))
    text = table(title, HEAD, rows)
    if out is not None:
        write(text, out, f"energy_{dim}d_degree_{degree}.md")
    return figures


if __name__ == "__main__":
    run(main)
