"""Functionals whose linear systems the tests solve, and their matrices by other means."""

from typing import Any

import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, MixedSpace, WeakForm, unit_square
from solvers.operators.system import System
from tests.problems import diffusion, laplace


def elasticity(x, u, grad_u, mu=0.7):
    strain = 0.5 * (grad_u + grad_u.mT)
    return mu * strain.square().sum((-2, -1)) + 0.4 * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()


def advection(x, u, grad_u, v, grad_v):
    return (grad_u * grad_v).sum(-1) + 20 * grad_u[..., 0] * v + u * grad_u[..., 1] * v


def stokes(x, u, grad_u, viscosity=1.0):
    return 0.5 * viscosity * grad_u[0].square().sum((-2, -1)) - u[1] * grad_u[0].diagonal(dim1=-2, dim2=-1).sum(-1)


def taylor_hood(mesh):
    return MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))


def distorted(n, **kwargs):
    torch.manual_seed(0)
    mesh = unit_square(n, **kwargs)
    return mesh.with_nodes(mesh.nodes + 0.2 / n * (torch.rand_like(mesh.nodes) - 0.5))


def problem(name, n=4) -> tuple[Any, tuple[Any, ...]]:
    """A functional and parameters for it; its constraint leaves a nonsingular matrix."""
    mesh = distorted(n)
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1), components=2)
    if name == "scalar":
        return Energy(V, lambda x, u, g, k: diffusion(x, u, g, k) + u**4, Dirichlet(V, {"left": 1.0})), (2.0,)
    if name == "robin":
        robin = {"right": lambda x, u, normal, k: 0.5 * k * (u - 1).square() * (1 + x[..., 1])}
        return Energy(V, laplace, boundary=robin), (3.0,)
    if name == "vector":
        return Energy(W, elasticity, Dirichlet(W, {("left", 0): 0.0, ("bottom", 1): 0.1})), ()
    if name == "batch":
        field = torch.rand(3, *V.shape, dtype=torch.float64) + 0.5
        energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
        return energy, (V.function(field),)
    if name == "mixed":
        X = taylor_hood(mesh)
        return Energy(X, stokes, Dirichlet(X, {("left", 0): 0.0, ("top", 0): 0.0, ("bottom", 0): 0.0})), ()
    if name == "weak":
        return WeakForm(V, advection, Dirichlet(V, {"left": 0.0, "right": 1.0})), ()
    assert name == "mean zero"
    return Energy(V, laplace, MeanZero(V)), ()


def system_of(name, n=4):
    functional, params = problem(name, n)
    form = functional.discrete_form(params)
    torch.manual_seed(1)
    u = torch.rand(*form.batch, *functional.space.shape, dtype=torch.float64)
    return System(form, u, symmetric=isinstance(functional, Energy)), functional, params, u


def dense(functional, u, params):
    """The Hessian as a dense matrix "*b N N", column by column from products: assembly has no part in it."""
    space = functional.space
    lead = u.ndim - len(space.shape)
    eye = torch.eye(space.num_dofs, dtype=torch.float64).unflatten(-1, space.shape)
    with torch.no_grad():
        columns = functional.hessian_product(u, eye.reshape(-1, *[1] * lead, *space.shape), *params)
    return columns.flatten(1 + lead).movedim(0, -1)
