"""What is kept from the first call on is made of plain tensors, even if that call stands inside of a transformation.

A tensor of `torch.func.grad` that outlives it is dead: it fails inside of the next one, or hides another's derivative.
Each transformation has a process of its own, in which nothing has been made before.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gc, sys, warnings
import torch
from torch.func import grad, hessian, jacfwd, vmap
from torch._C._functorch import is_functorch_wrapped_tensor
from fem import *
from nurbs import disk_patches, isogeometric_space
from segmentation import piecewise_constant
from solvers import AlgebraicMultigrid, FastDiagonalization, Multigrid, eigenmodes, minimize, solve
from splines import fit_piecewise

warnings.simplefilter("ignore", DeprecationWarning)  # of what PyTorch runs forward mode by
F64 = {"dtype": torch.float64}

def density(x, u, g, k):
    return 0.5 * k * g.square().sum(-1) + u**4 - (1 + x[..., 0]) * u

def settings():
    found = {}
    def on(mesh, element=None, holding=lambda V: Dirichlet(V, {"boundary": 0.0}), **more):
        V = FunctionSpace(mesh, element or Lagrange(1))
        return V, Energy(V, density, holding(V), **more)
    triangles, hexahedra = on(unit_square(5, cell="triangle")), on(unit_cube(2))
    quads = on(unit_square(4), Lagrange(2), MeanZero)
    curved = on(unit_square(3, cell="triangle").curved(2), Lagrange(2))
    tetrahedra = on(unit_cube(2, cell="tetrahedron"), boundary={"left": lambda x, u, n, k: k * u * n[..., 0]})
    splines, line = isogeometric_space(disk_patches(), 2, 2), FunctionSpace(unit_interval(5), Lagrange(3))
    W = MixedSpace(FunctionSpace(line.mesh, Lagrange(2)), line)
    pair = lambda x, u, g, k: 0.5 * (k * g[0].square() + g[1].square()).sum(-1) + u[0] * u[1] - x[..., 0] * u[1]
    coupled = Energy(W, pair, Dirichlet(W, {"boundary": 0.0}))
    meshes = {"triangles": triangles, "hexahedra": hexahedra, "quads": quads, "curved": curved, "solid": tetrahedra}
    for name, (_, energy) in meshes.items():
        found[name] = lambda k, energy=energy: minimize(energy, (k,)).value
    V, energy = triangles
    u, points = V.interpolate(lambda x: x.sum(-1)), torch.full((3, 2), 0.3, **F64)
    quadratic = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) + k * u**2, energy.constraint)
    grid = FunctionSpace(unit_square(12), Lagrange(1))
    on_grid = Energy(grid, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u, Dirichlet(grid, {"boundary": 0.0}))
    image = torch.linspace(0, 6, 64, **F64).sin().reshape(1, 1, 8, 8)
    disk = Energy(splines, density, Dirichlet(splines, {"outer": 0.0}))
    found |= {
        "energy": lambda k: energy(k * u, k),
        "residual": lambda k: energy.residual(k * u, k),
        "evaluate": lambda k: V.evaluate(k * u, points),
        "integral": lambda k: integrate(V, V.function(k * u), "left"),
        "error": lambda k: l2_error(V, k * u, lambda x: k * x[..., 0] ** 2),
        "interpolate": lambda k: V.interpolate(lambda x: k * x[..., 0]),
        "boundary values": lambda k: Dirichlet(V, {"left": k, "right": lambda x: k * x[..., 1]}).apply(u),
        "modes": lambda k: eigenmodes(quadratic, Energy(V, lambda x, u, g: 0.5 * u**2), 2, params=(k,)).values,
        "multigrid": lambda k: minimize(on_grid, (k,), method=Multigrid()).value,
        "algebraic": lambda k: minimize(on_grid, (k,), method=AlgebraicMultigrid()).value,
        "fast": lambda k: minimize(on_grid, (k,), method=FastDiagonalization()).value,
        "splines": lambda k: minimize(disk, (k,)).value,
        "mixed": lambda k: solve(coupled, (k,)).value,
        "layer": lambda k: piecewise_constant(k * image, 0.4),
        "fit": lambda k: fit_piecewise(k * image.flatten(), 3).values,
    }
    return found

ways = {
    "grad": lambda f: grad(lambda k: f(k).sum()),
    "vmap of grad": lambda f: lambda k: vmap(grad(lambda k: f(k).sum()))(torch.stack([k, 2 * k])),
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(lambda k: f(k).sum()),
    "what is not transformed": lambda f: lambda k: grad(lambda other: (f(k.detach()) * other).sum())(k),
}
k = torch.tensor(1.5, **F64)
functions, way = settings(), ways[sys.argv[1]]
first = {name: way(f)(k) for name, f in functions.items()}
gc.collect()
dead = [tuple(t.shape) for t in gc.get_objects() if isinstance(t, torch.Tensor) and is_functorch_wrapped_tensor(t)]
assert not dead, dead
for name, f in settings().items():
    outside, again = f(k), way(f)(k)
    torch.testing.assert_close(outside, functions[name](k), rtol=1e-9, atol=1e-12, msg=name)
    torch.testing.assert_close(first[name], again, rtol=1e-9, atol=1e-12, msg=name)
"""


@pytest.mark.parametrize(
    "way",
    [
        "vmap of grad",
        "jacfwd",
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("grad", "hessian", "what is not transformed")),
    ],
)
def test_nothing_that_is_kept_belongs_to_the_transformation_of_the_first_call(way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
