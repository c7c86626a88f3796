"""Traces: programs of scalars give the values and derivatives that the traced density has at many points at once."""

import gc
import weakref
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor

from fem.kernels.derivatives_at_point import directional, gradients, hessian, value_and_gradient
from fem.kernels.program import UntraceableError
from fem.kernels.tracing import trace
from tests.problems import conduction, diffusion

C = torch.tensor([[2.0, -0.5], [0.25, 3.0]], dtype=torch.float64)
MASK = torch.tensor([True, False])
ORDER = torch.tensor([1, 0])


def log_det(x, u, g, k):
    """Hyperelastic, by hand."""
    J = torch.eye(2, dtype=g.dtype) + 0.1 * g
    det = J[..., 0, 0] * J[..., 1, 1] - J[..., 0, 1] * J[..., 1, 0]
    return 0.5 * k * J.square().sum((-2, -1)) - k * det.log() + 0.5 * (det - 1) ** 2 - u[..., 1]


def elastic(x, u, g, k):
    strain = 0.5 * (g + g.mT)
    return k * strain.square().sum((-2, -1)) + 0.5 * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()


def written(x, u, g, k):
    """Into fresh tensors, entry by entry, over and over."""
    z = torch.zeros_like(u)
    z[..., 0] = u[..., 1] * k
    z[..., 1] += u[..., 0]
    z[..., 1] *= 3
    z.neg_()
    w = torch.empty_like(g)
    w[..., 0, :] = g[..., 1, :]
    w[..., 1, :] = 2.0
    w[..., 1, 0].zero_()
    w.mul_(x[..., None, :])
    return (z * u).sum(-1) + w.square().sum((-2, -1))


def rewritten(x, u, g, k):
    """What is overwritten leaves no trace."""
    z = u.clone()
    z[..., 0] = 1.0
    z[..., 0] = u[..., 1]
    v = z.view(z.shape)
    z[..., 1] = 7.0
    return (v * u).sum(-1)


def scaled(t):
    return {"a": 2.0, "b": t}["b"] * 3


VECTORS = {
    "elasticity": elastic,
    "log det": log_det,
    "writes": written,
    "overwrites": rewritten,
    "einsum": lambda x, u, g, k: torch.einsum("...i,...ij,...j->...", u, g, x),
    "einsum with a constant": lambda x, u, g, k: torch.einsum("...ij,jk,...ik->...", g, C, g),
    "matmul": lambda x, u, g, k: (g @ C @ u[..., None])[..., 0].square().sum(-1),
    "outer": lambda x, u, g, k: ((u[..., :, None] * x[..., None, :]) * g).sum((-2, -1)),
    "linear layer": lambda x, u, g, k: torch.nn.functional.linear(u, C, C[0]).tanh().sum(-1),
    "addmm": lambda x, u, g, k: torch.addmm(C, g, g, beta=0.5, alpha=2).sum() if g.ndim == 2 else addmm(g),
    "trace": lambda x, u, g, k: torch.einsum("...ii->...", g) * k,
    "skew": lambda x, u, g, k: (0.5 * (g - g.transpose(-1, -2))).square().sum((-1, -2)),
    "flip, roll": lambda x, u, g, k: (u.flip(-1) * x).sum(-1) + (g.roll(1, -1) * g).sum((-1, -2)),
    "cat": lambda x, u, g, k: torch.cat([u, x, k[..., None]], -1).square().prod(-1).detach() + u.sum(-1),
    "stack": lambda x, u, g, k: torch.stack([u[..., 0], k, x[..., 1]], -1).square().sum(-1),
    "stack with truth values": lambda x, u, g, k: torch.stack([u[..., 0] > 0, u[..., 1] > 0, k], -1).sum(-1) * k,
    "triangles": lambda x, u, g, k: g.tril().square().sum((-2, -1)) + g.triu(1).sum((-2, -1)),
    "pad": lambda x, u, g, k: (torch.nn.functional.pad(u, (1, 0))[..., :2] * u).sum(-1),
    "index": lambda x, u, g, k: (u[..., [1, 0]] * x).sum(-1) + g[..., [0, 1], [1, 0]].square().sum(-1),
    "index by tensor": lambda x, u, g, k: (u[..., ORDER] * x).sum(-1) + u.index_select(-1, ORDER)[..., 0] ** 3,
    "index by mask": lambda x, u, g, k: (u[..., MASK].square()).sum(-1),
    "mean": lambda x, u, g, k: g.mean((-2, -1)) * u.mean(-1, keepdim=True)[..., 0],
    "norm": lambda x, u, g, k: torch.linalg.vector_norm(g, dim=(-2, -1)) + u.norm(dim=-1) * k,
    "unbind, split": lambda x, u, g, k: u.unbind(-1)[0] * u.split(1, -1)[1][..., 0],
    "expand": lambda x, u, g, k: (u[..., None].expand_as(g) * g).sum((-2, -1)),
    "swaps": lambda x, u, g, k: (g.movedim(-1, -2) * g.unsqueeze(-1).squeeze(-1)).sum((-2, -1)) + g.flatten(-2)[..., 2],
    "cross": lambda x, u, g, k: u[..., 0] * x[..., 1] - u[..., 1] * x[..., 0],
    "cumulative": lambda x, u, g, k: torch.linalg.vecdot(u, x) ** 2,
}


def addmm(g):
    return torch.stack([torch.addmm(C, m, m, beta=0.5, alpha=2).sum() for m in g])


SCALARS = {
    "Poisson": lambda x, u, g, k: diffusion(x, u, g, k) - x[..., 0] * u,
    "p-Laplace": lambda x, u, g, k: (g.square().sum(-1) + 1e-3) ** 1.5 / 3 + k * u,
    "powers": lambda x, u, g, k: u**3 + u**-1.5 + 2**u + k**u + torch.pow(u, k) + u**0 + u**1 + u**2,
    "division": lambda x, u, g, k: 1 / u + u / k + u / 3 + (u / 2) / (k / u),
    "rounding division": lambda x, u, g, k: torch.div(5 * u, k, rounding_mode="floor") * u + (7 * u % k) + (u % 0.3),
    "reversed": lambda x, u, g, k: (1 - u) * torch.rsub(u, k, alpha=2) + torch.sub(u, k, alpha=3) - (-u),
    "transcendental": lambda x, u, g, k: u.exp() * (k * u).sin() + u.log() + u.sqrt() + u.rsqrt() + u.atan2(k),
    "saturating": lambda x, u, g, k: (
        torch.nn.functional.softplus(u)
        + u.tanh()
        + u.erf()
        + u.sigmoid()
        + torch.nn.functional.silu(u)
        + torch.nn.functional.gelu(u)
        + torch.nn.functional.elu(u)
    ),
    "gelu by tanh": lambda x, u, g, k: torch.nn.functional.gelu(u - 0.5, approximate="tanh"),
    "softplus with numbers": lambda x, u, g, k: torch.nn.functional.softplus(u - 0.4, beta=3.0, threshold=0.5),
    "where": lambda x, u, g, k: torch.where(u > 0.5, u.square(), k * u) + torch.where(x[..., 0] < 0.5, 1.0, u),
    "where of numbers": lambda x, u, g, k: torch.where((u > 0.5) & (x[..., 0] < 0.5), 1.0, 10.0) * u,
    "where not": lambda x, u, g, k: torch.where(~((u > 0.6) | (k < 0.5)), u, u.square()),
    "clamp": lambda x, u, g, k: (
        u.clamp(0.4) + u.clamp(max=0.6) ** 2 + torch.clamp(u, torch.tensor(0.5).double()) + u.clip(k, 2 * k)
    ),
    "relu": lambda x, u, g, k: (u - 0.5).relu() ** 2 + (u - 0.4).abs() + torch.nn.functional.leaky_relu(u - 0.5, 0.1),
    "minima, maxima": lambda x, u, g, k: torch.minimum(u, k) * torch.maximum(x[..., 0], u) + torch.fmax(u, k),
    "masks as numbers": lambda x, u, g, k: (u > 0.5) * u + (u > 0.4).double() * k + (u > 0.3).to(u) * 2,
    "masks counted": lambda x, u, g, k: ((u > 0.4) * 1.0 + (u > 0.6) * 1.0) * u,
    "masks summed": lambda x, u, g, k: (g > 0.5).sum(-1) * u + torch.stack([u > 0.3, u > 0.5], -1).sum(-1) / 2 * u,
    "masked fill": lambda x, u, g, k: u.masked_fill(u > 0.5, 2.0) * k,
    "integers": lambda x, u, g, k: (10 * u).long() * u + (3 * k).int() + (u > 0.5).int() * k,
    "rounded": lambda x, u, g, k: (10 * u).round() * u + (7 * u).floor() * k + (u - 0.5).sign() + u.frac(),
    "softmax": lambda x, u, g, k: torch.softmax(g, -1)[..., 0] * u,
    "hypot": lambda x, u, g, k: torch.hypot(u, k) + torch.logaddexp(u, k) + torch.xlogy(u, k),
    "lerp": lambda x, u, g, k: (
        torch.lerp(u, k, 0.3) + torch.addcmul(u, k, u, value=2) + torch.addcdiv(u, k, u, value=3)
    ),
    "detached": lambda x, u, g, k: u.detach() * u + g.detach().square().sum(-1),
    "ones": lambda x, u, g, k: torch.ones_like(g).sum(-1) * u + torch.full_like(u, 3.0) * k + u.new_tensor(2.0) * u,
    "numbers of the code": lambda x, u, g, k: float(np.pi) * u * np.float64(2) + np.sin(1.0) * k,
    "without u": lambda x, u, g, k: x.square().sum(-1) * k,
    "extremes": lambda x, u, g, k: g.amax(-1) * u + torch.stack([u, k, x[..., 0]], -1).amin(-1) ** 2,
    "functions of functions": lambda x, u, g, k: scaled(u) * k,
    "loops": lambda x, u, g, k: sum(u**i / (i + 1) for i in range(4)),
    "its own derivative": lambda x, u, g, k: torch.autograd.grad((k * u**3).sum(), u, create_graph=True)[0] + u,
    "infinite": lambda x, u, g, k: (
        torch.where(u > 10, torch.inf, u) + torch.maximum(u, torch.tensor(-torch.inf).double())
    ),
    "double precision": lambda x, u, g, k: (u.double() * k).to(u.dtype),
}


def points(shapes: list[tuple[int, ...]], n: int = 5, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.rand(n, *s, dtype=torch.float64, generator=generator) + 0.1 for s in shapes]
    return [t.requires_grad_() for t in made]


def evaluated(program, arguments: list[Tensor]) -> list[Tensor]:
    """All outputs of a program at n points, each "n *shape"."""
    n = len(arguments[0])
    entries = [e for a in arguments for e in a.detach().reshape(n, -1).unbind(-1)]
    flat = [torch.as_tensor(o, dtype=torch.float64).expand(n) for o in program.run(*entries)]
    outputs = iter(flat)
    return [torch.stack([next(outputs) for _ in range(prod(s))], -1).reshape(n, *s) for s in program.shapes]


def check(density, shapes: list[tuple[int, ...]]) -> None:
    """Value, gradient, Hessian and directional derivatives against autograd through all points at once."""
    arguments, wrt = points(shapes), [1, 2]
    value = density(*arguments).expand(5)
    slopes = gradients_of_sum(value, [arguments[i] for i in wrt])
    found = evaluated(trace(value_and_gradient(density, wrt), shapes, torch.float64), arguments)
    for a, b in zip(found, [value, *slopes], strict=True):
        torch.testing.assert_close(a, b.detach())
    fluxes = torch.cat([s.reshape(5, -1) for s in slopes], 1)
    rows = [gradients_of_sum(f, [arguments[i] for i in wrt]) for f in fluxes.unbind(1)]
    wanted = torch.stack([torch.cat([r.reshape(5, -1) for r in row], 1) for row in rows], 1)
    matrix = torch.stack(evaluated(trace(hessian(density, wrt), shapes, torch.float64), arguments), 1)
    torch.testing.assert_close(matrix, wanted.detach())
    directions = points([shapes[i] for i in wrt], seed=1)
    along = value_and_gradient(directional(density, wrt), wrt)
    found = evaluated(trace(along, [*shapes, *[shapes[i] for i in wrt]], torch.float64), [*arguments, *directions])
    flat = torch.cat([d.reshape(5, -1) for d in directions], 1)
    torch.testing.assert_close(found[0], (fluxes * flat).sum(1).detach())
    product = torch.cat([f.reshape(5, -1) for f in found[1:]], 1)
    torch.testing.assert_close(product, torch.einsum("nij,nj->ni", matrix, flat).detach())


def gradients_of_sum(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return gradients(value.sum(), inputs)


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_densities(name: str) -> None:
    check(SCALARS[name], [(2,), (), (2,), ()])


@pytest.mark.parametrize("name", VECTORS)
def test_vector_densities(name: str) -> None:
    check(VECTORS[name], [(2,), (2,), (2, 2), ()])


@pytest.mark.parametrize("dim", [1, 3])
def test_other_dimensions(dim: int) -> None:
    check(SCALARS["p-Laplace"], [(dim,), (), (dim,), ()])
    check(elastic, [(dim,), (dim,), (dim, dim), ()])


def test_single_precision_stays_single() -> None:
    shapes = [(2,), (), (2,), ()]
    density = lambda x, u, g, k: torch.where(u > 0.5, 1.0, 2.0) * g.square().sum(-1) + (u > 0.2).to(u) * C[0, 0] * u  # noqa: E731
    program = trace(value_and_gradient(density, [1, 2]), shapes, torch.float32)
    outputs = program.run(*[torch.rand(7) for _ in range(6)])
    assert all(o.dtype == torch.float32 for o in outputs if isinstance(o, Tensor))


def test_constants_keep_all_their_digits() -> None:
    c = torch.tensor([0.1, 0.7], dtype=torch.float64)
    density = lambda x, u, g, k: torch.stack([u, c[0]], -1).sin().sum(-1) + torch.stack([k, c[1]], -1).exp()[..., 1]  # noqa: E731
    program = trace(value_and_gradient(density, [1]), [(2,), (), (2,), ()], torch.float64)
    u = torch.zeros(1, dtype=torch.float64)
    found = program.run(u, u, u, u, u, u)[0]
    assert found.item() == pytest.approx(c[0].sin().item() + c[1].exp().item(), rel=1e-15)


# -- simplification ----------------------------------------------------------------------------------------------------


def test_the_hessian_of_the_dirichlet_energy_is_its_coefficient() -> None:
    """½ ν |∇u|² − f u: ν on the diagonal, zeros elsewhere, nothing of u, ∇u, x or f."""
    density = conduction
    program = trace(hessian(density, [1, 2]), [(2,), (), (2,), (), ()], torch.float64)
    nu = torch.tensor([3.0, 5.0])
    outputs = program.run(*[None] * 5, nu, None)
    assert program.used == (False, False, False, False, False, True, False)
    for k, output in enumerate(outputs):
        assert output is nu if k in (4, 8) else output == 0


def test_quadratic_energies_have_constant_hessians() -> None:
    program = trace(hessian(elastic, [1, 2]), [(2,), (2,), (2, 2), ()], torch.float64)
    assert program.used[:-1] == (False,) * 8
    assert program.used[-1]


def test_used_tells_what_matters() -> None:
    density = lambda x, u, g, k: x[..., 1] * g[..., 0] ** 2 + 0 * u  # noqa: E731
    program = trace(value_and_gradient(density, [1, 2]), [(2,), (), (2,), ()], torch.float64)
    assert program.used == (False, True, False, True, False, False)


def test_common_subexpressions_are_computed_once() -> None:
    once = lambda x, u, g, k: u.exp() * k  # noqa: E731
    often = lambda x, u, g, k: (u.exp() * k + u.exp() * k + k * 0 + u.exp() * k) / 3  # noqa: E731
    sizes = [
        len(trace(value_and_gradient(f, []), [(2,), (), (2,), ()], torch.float64).run.graph.nodes)
        for f in (once, often)
    ]
    assert sizes[1] <= sizes[0] + 3


# -- what is refused ---------------------------------------------------------------------------------------------------

NEEDY = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
TABLE = torch.ones(2000, dtype=torch.float64)
COUNTER = [0.0]


def counting(x, u, g, k):
    COUNTER[0] += 1.0
    return u * COUNTER[0]


UNTRACEABLE = {
    "branches": (lambda x, u, g, k: u if u > 0 else -u, "it looks at values"),
    "float": (lambda x, u, g, k: u * float(k), "it looks at values"),
    "item": (lambda x, u, g, k: u * k.item(), "it looks at values"),
    "gradient of a captured tensor": (lambda x, u, g, k: u * NEEDY, "a captured tensor requires a gradient"),
    "gradient alone": (lambda x, u, g, k: NEEDY * 2, "a captured tensor requires a gradient"),
    "inverse": (lambda x, u, g, k: torch.linalg.inv(torch.eye(2).double() + u)[..., 0, 0], "no meaning entry by entry"),
    "sort": (lambda x, u, g, k: g.sort().values[..., 0], "no meaning entry by entry"),
    "large tensors": (lambda x, u, g, k: (TABLE * u[..., None]).sum(-1), "it works with 2000 numbers at a point"),
    "complex numbers": (lambda x, u, g, k: torch.complex(u, k).abs(), "no meaning entry by entry|another type"),
    "complex views": (lambda x, u, g, k: torch.view_as_complex(g).abs(), "reads numbers as another type"),
    "bits": (lambda x, u, g, k: u.view(torch.int64) * k, "reads numbers as another type"),
    "values as indices": (lambda x, u, g, k: g[..., (u > 0).long()], "indices that depend on values|looks at values"),
    "values as masks": (lambda x, u, g, k: g[g > 0].sum(-1), "indices that depend on values|no meaning"),
    "variances": (lambda x, u, g, k: g.var(-1) * u, "no meaning entry by entry"),
    "other norms": (lambda x, u, g, k: torch.linalg.vector_norm(g, ord=3, dim=-1), "it takes a norm of order 3"),
    "padding with ones": (
        lambda x, u, g, k: torch.nn.functional.pad(g, (0, 1), value=1.0).sum(-1) * u,
        "pads with another number",
    ),
    "a forgotten sum": (lambda x, u, g, k: g.square(), r"it gives \(2,\) numbers at a point, not one"),
    "no tensor": (lambda x, u, g, k: 1.0, "1.0|float"),
    "its own mistakes": (lambda x, u, g, k: u.no_such_thing(), "AttributeError: .*no_such_thing"),
    "leaves in place": (lambda x, u, g, k: u.mul_(2), "RuntimeError"),
    "NumPy": (lambda x, u, g, k: u * torch.as_tensor(np.sin(k.detach().numpy())), "depend on more than its arguments"),
    "lists": (lambda x, u, g, k: u * sum(g.tolist()), "depend on more than its arguments"),
    "random numbers": (lambda x, u, g, k: u * torch.rand(()), "depend on more than its arguments"),
    "random numbers like u": (lambda x, u, g, k: u * torch.rand_like(k), "depend on more than|no meaning"),
    "memory of calls": (counting, "depend on more than its arguments"),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_is_refused(name: str) -> None:
    density, message = UNTRACEABLE[name]
    with pytest.raises(UntraceableError, match=message):
        trace(value_and_gradient(density, [1, 2]), [(2,), (), (2,), ()], torch.float64)


def test_a_vector_of_one_is_no_number() -> None:
    """In one dimension too, where a forgotten sum changes nothing but the shape."""
    with pytest.raises(UntraceableError, match=r"it gives \(1,\) numbers at a point"):
        trace(value_and_gradient(lambda x, u, g: g.square(), [1, 2]), [(1,), (), (1,)], torch.float64)


def test_a_number_of_operations_is_too_many() -> None:
    def network(x, u, g, k):
        layer = torch.arange(900.0, dtype=u.dtype).reshape(30, 30)
        h = u[..., None] * layer[0]
        for _ in range(20):
            h = torch.tanh(layer @ (h * torch.arange(30)))
        return h.sum(-1)

    with pytest.raises(UntraceableError, match="it takes more than 10000 operations at a point"):
        trace(value_and_gradient(network, []), [(2,), (), (2,), ()], torch.float64)


# -- how it is called --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_gradients_are_traced_where_none_are_recorded(mode) -> None:
    with mode():
        program = trace(value_and_gradient(lambda x, u, g: u**2, [1]), [(2,), (), (2,)], torch.float64)
    u = torch.tensor([3.0])
    assert program.run(None, None, u, None, None)[1].item() == 6


def test_nothing_is_kept_of_a_density() -> None:
    class Density:
        def __call__(self, x, u, g):
            return u * g.sum(-1)

    density = Density()
    program = trace(value_and_gradient(density, [1]), [(2,), (), (2,)], torch.float64)
    gone = weakref.ref(density)
    del density
    gc.collect()
    assert gone() is None
    assert len(program.run(*[torch.ones(1)] * 5)) == 2


def test_memory_that_is_freed_and_used_again_means_nothing() -> None:
    """Temporaries come and go while the density runs; none may be mistaken for one that came before."""

    def density(x, u, g, k):
        total = u
        for i in range(50):
            constant = torch.full((2,), float(i), dtype=u.dtype)
            total = total + (constant * 2).sum() * (k + 1) - torch.zeros(2, dtype=u.dtype).add_(u).sum() / 100
        return total

    u, k = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    program = trace(value_and_gradient(density, []), [(2,), (), (2,), ()], torch.float64)
    assert program.run(None, None, u, None, None, k)[0].item() == pytest.approx(0.3 + 4 * 1225 * 1.2 - 0.3)
