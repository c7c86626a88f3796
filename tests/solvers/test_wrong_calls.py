"""Calls that cannot work say what would: settings of methods and networks, methods and parameters of another kind."""

from tests.wrong_calls import misunderstood

SETUP = """
from math import nan
import numpy as np
import torch
from fem import *
from solvers import *
mesh = unit_square(4)
V, vectors = FunctionSpace(mesh, Lagrange(1)), FunctionSpace(mesh, Lagrange(1), components=2)
u = torch.zeros(V.shape, dtype=V.dtype)
D = Dirichlet(V, {"boundary": 0.0})
J = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1) - u, D)
weighted = lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u
K, M = Energy(V, weighted, D), Energy(V, lambda x, u, g: 0.5 * u**2)
weak = WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) + u * gv[..., 0] - v, D)
ks = torch.tensor([1.0, 2.0], dtype=torch.float64)
net, images = torch.nn.Conv2d(1, 1, 1), torch.rand(1, 1, 5, 5)
pinn = PINN(2, 4, 1)
x = torch.rand(10, 2, dtype=torch.float64)
points = pinn.at(x)
loss = lambda: pinn(x).square().mean()
"""

METHODS = {
    "Newton(max_iterations=-1)": r"`Newton\(max_iterations=\.\.\.\)` must be a non-negative integer; got -1",
    "Newton(max_iterations=1.5)": "must be a non-negative integer; got 1.5",
    "Newton(max_iterations=True)": "must be a non-negative integer; got True",
    "Newton(rtol=-1)": r"`Newton\(rtol=\.\.\.\)` must be None or a number of at least 0 and less than 1; got -1",
    "Newton(rtol=nan)": "less than 1; got nan",
    "Newton(linear=Multigrid)": r"`Newton\(linear=\.\.\.\)` must be a linear method, .*; got the class `Multigrid`",
    "Newton('multigrid')": "must be a linear method, .*; got 'multigrid'",
    "Newton(LBFGS())": r"must be a linear method, .*; got LBFGS",
    "Newton(1e-8)": "must be a linear method, .*; got 1e-08",
    "LBFGS(history=0)": r"`LBFGS\(history=\.\.\.\)` must be a positive integer; got 0",
    "LBFGS(max_iterations=0)": r"`LBFGS\(max_iterations=\.\.\.\)` must be a positive integer; got 0",
    "LBFGS(rtol=1)": r"`LBFGS\(rtol=\.\.\.\)` must be",
    "Adam(lr=0)": r"`Adam\(lr=\.\.\.\)` must be a positive number; got 0",
    "Adam(rtol=nan)": r"`Adam\(rtol=\.\.\.\)` must be a number of at least 0",
    "Adam(max_iterations=0)": r"`Adam\(max_iterations=\.\.\.\)` must be a positive integer",
    "CG(rtol=-1)": r"`CG\(rtol=\.\.\.\)` must be",
    "CG(max_iterations=-5)": r"`CG\(max_iterations=\.\.\.\)` must be a positive integer; got -5",
    "CG(preconditioner=Jacobi)": r"must be a preconditioner, .*; got the class `Jacobi`",
    "CG(preconditioner=Direct())": r"must be a preconditioner, .*; got Direct\(backend=None\)",
    "CG(preconditioner=None)": r"must be a preconditioner, .*; got None",
    "Multigrid(max_iterations=-5)": r"`Multigrid\(max_iterations=\.\.\.\)` must be a positive integer; got -5",
    "Multigrid(rtol=-1)": r"`Multigrid\(rtol=\.\.\.\)` must be",
    "AlgebraicMultigrid(max_iterations=0)": r"`AlgebraicMultigrid\(max_iterations=\.\.\.\)` must be a positive integer",
    "AlgebraicMultigrid(rtol=2)": r"`AlgebraicMultigrid\(rtol=\.\.\.\)` must be",
    "Direct('pardizo')": r"\"superlu\", \"pardiso\" or None; got 'pardizo'\. Did you mean 'pardiso'\?",
    "FastDiagonalization(scaled='yes')": r"`FastDiagonalization\(scaled=\.\.\.\)` must be True or False; got 'yes'",
}

SOLVES = {
    "minimize(J, 2.0)": r"`minimize\(params=\.\.\.\)` must be a tuple of parameters; got 2\.0: .* `params=\(2\.0,\)`",
    "minimize(K, ks)": r"got a tensor of shape \(2,\): a single parameter is written `params=\(\.\.\.,\)`",
    "minimize(K, {'k': 1.0})": "parameters have no names",
    "minimize(K, V.function(u))": "must be a tuple of parameters",
    "minimize(K, lambda x: 1.0)": "must be a tuple of parameters; got the function",
    "minimize(K)": "but gets x, u, grad_u and no parameters; k is missing",
    "minimize(J, (1.0,))": "but gets x, u, grad_u and 1 parameter: every term gets all parameters",
    "minimize(K, ('a',))": "parameter 0 must be a number, tensor, field, callable or material; got 'a'",
    "minimize(J, method='newton')": r"`minimize\(method=\.\.\.\)` must be a method, `Newton\(\)`, .*; got 'newton'",
    "minimize(J, method=Multigrid)": r"must be a method, .*; got the class `Multigrid`, not an object: write",
    "minimize(J, method=Jacobi())": r"must be a method, .*; got Jacobi\(\)",
    "minimize(J, method=torch.optim.Adam)": "must be a method, .*; got the class `Adam`",
    "minimize(J, initial=np.zeros(25))": r"`initial` must be a tensor of shape \(\.\.\., 25\); got a NumPy array",
    "minimize(J, initial=minimize(J))": r"`initial` must be a tensor .* Its `\.value` may be meant",
    "minimize(J, lower='a')": "a number, or a callable of x",
    "minimize(J, lower={'lef': 0.0})": r"Did you mean 'left'\?",
    "minimize(J, upper=nan)": "`upper` holds NaN",
    "reaction(K, u, 'left', 2.0)": r"`reaction\(params=\.\.\.\)` must be a tuple of parameters; got 2\.0",
    "solve(weak, method=FastDiagonalization())": r"couples derivatives of different .*; weak forms need `Direct\(\)`",
    "solve(weak, method=Multigrid())": r"got a weak form, .* Use `Direct\(\)`\.",
    "minimize(J + Energy(V, J.terms[0].density, Dirichlet(V, {'boundary': 0.0})))": "give both one and the same object",
    "minimize(J, upper=True)": "`upper` must be a number, dofs, a callable of x, a mapping from tags or None; got True",
    "minimize(J, lower=torch.tensor(False))": "`lower` must be a number, dofs, .*; got a tensor of value False",
    "minimize(J, lower=u.long())": "`lower` is torch.int64 but the space is torch.float64",
    "minimize(J, initial=u.long())": "`initial` is torch.int64 but the space is torch.float64",
    "minimize(J, initial=u.bool(), method=LBFGS())": "`initial` is torch.bool but the space is torch.float64",
    "minimize(J, throw='no')": r"`minimize\(throw=\.\.\.\)` must be True or False; got 'no'",
    "minimize(lambda x, u, g: u)": "`minimize` takes an `Energy`; got the function",
    "minimize(Energy)": "`minimize` takes an `Energy`; got the class `Energy`",
    "solve(J, 2.0)": r"`solve\(params=\.\.\.\)` must be a tuple",
    "solve(J, method=LBFGS)": r"`solve\(method=\.\.\.\)` must be a method",
    "solve(J, method=LBFGS())": r"`LBFGS\(\)` only descends",
    "solve(WeakForm(V, lambda x, u, g, v, gv: v * v, D))": "the form is not linear in v and grad_v",
    "solve(WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) - 1.0, D))": "the form is not linear in v and grad_v",
    "solve(WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1), D, {'left': lambda x, u, n, v: u * u}))": (
        "the boundary form on 'left' is not linear in v and grad_v"
    ),
    "eigenmodes(J, J, ())": r"`eigenmodes\(count=\.\.\.\)` must be a positive integer; got \(\)",
    "eigenmodes(K, M, 2, (nan,))": r"parameter 0 is nan at a quadrature point of the density",
    "eigenmodes(J, M, 2.5)": r"`eigenmodes\(count=\.\.\.\)` must be a positive integer; got 2\.5",
    "eigenmodes(J, M, 3, 2.0)": r"`eigenmodes\(params=\.\.\.\)` must be a tuple",
    "eigenmodes(J, M, 3, (), 2.0)": r"`eigenmodes\(mass_params=\.\.\.\)` must be a tuple .* `mass_params=\(2\.0,\)`",
    "eigenmodes(J, None)": r"`eigenmodes\(mass=\.\.\.\)` must be an `Energy`; got None",
    "eigenmodes(J, M, 2, near=nan)": r"`eigenmodes\(near=\.\.\.\)` must be a finite number",
    "certify(J, u, 2.0)": r"`certify\(params=\.\.\.\)` must be a tuple",
    "certify(J, u, method='cg')": r"`certify\(method=\.\.\.\)` must be a preconditioner or linear method, .*; got 'cg'",
    "certify(J, u, method=Multigrid)": "got the class `Multigrid`",
    "certify(V, u)": r"`certify\(energy=\.\.\.\)` must be an `Energy`",
    "certify(Energy(V, lambda x, u, g: u**4 + g.square().sum(-1), D), u)": "are for quadratic energies",
    "predict(net, J, images, 2.0)": r"`predict\(params=\.\.\.\)` must be a tuple",
    "predict(net, J, 3)": r"`predict\(inputs=\.\.\.\)` must be a tensor of images",
    "predict(net, J, images, tol=2)": r"`predict\(tol=\.\.\.\)` must be None or a number between 0 and 1; got 2",
    "predict(net, J, images, max_cycles=-1)": r"`predict\(max_cycles=\.\.\.\)` must be a non-negative integer",
    "predict(UNet, J, images)": r"`predict\(network=\.\.\.\)` must be a network, .*; got the class `UNet`",
    "ReducedBasis.of_snapshots(K, ks)": r"`ReducedBasis.of_snapshots\(params=\.\.\.\)` must be a tuple",
    "ReducedBasis.of_snapshots(K, (ks,), 1.5)": r"of_snapshots\(size=\.\.\.\)` must be None or a positive integer",
    "ReducedBasis.of_snapshots(K, (ks,))(1.0)": r"`ReducedBasis\(params=\.\.\.\)` must be a tuple",
}

NETWORKS = {
    "GaussianField(dim=5)": r"`GaussianField\(dim=\.\.\.\)` must be 1, 2 or 3; got 5",
    "GaussianField(dim=True)": "must be 1, 2 or 3; got True",
    "GaussianField(length=-1)": r"`GaussianField\(length=\.\.\.\)` must be a positive number; got -1",
    "GaussianField(smoothness=-3)": r"`GaussianField\(smoothness=\.\.\.\)` must be a non-negative number",
    "GaussianField(deviation=nan)": r"`GaussianField\(deviation=\.\.\.\)` must be a non-negative number; got nan",
    "GaussianField(modes=1)": r"`GaussianField\(modes=\.\.\.\)` must be an integer of at least 2; got 1",
    "GaussianField(2).sample(-1)": r"`GaussianField.sample\(count=\.\.\.\)` must be a non-negative integer",
    "GaussianField(2)(torch.zeros(255), torch.rand(5, 3))": r"lives in 2 dimensions; got points x of shape \(5, 3\)",
    "ExponentialSeries(frequencies=3.0)": r"`ExponentialSeries\(frequencies=\.\.\.\)` must be a sequence",
    "ExponentialSeries(frequencies=())": "must be a sequence of one or more numbers",
    "ExponentialSeries(frequencies=(1.0, nan))": r"frequencies\[1\]=\.\.\.\)` must be a finite number; got nan",
    "ExponentialSeries(bound=-1)": r"`ExponentialSeries\(bound=\.\.\.\)` must be a positive number",
    "ExponentialSeries().sample(2, start=-2)": r"sample\(start=\.\.\.\)` must be a non-negative integer",
    "GaussianField().sample(2, like=torch.ones(1).long())": r"sample\(like=\.\.\.\)` must be .* got torch.int64",
    "GaussianField()(torch.zeros(255), (4 * x).long())": r"`GaussianField\(x=\.\.\.\)` must be .*; got torch.int64",
    "ExponentialSeries().sample(2, like=torch.tensor(True))": r"sample\(like=\.\.\.\)` must be .*; got torch.bool",
    "ExponentialSeries()(torch.zeros(4), (4 * x).int())": r"`ExponentialSeries\(x=\.\.\.\)` must be .*`x.double\(\)`",
    "DiffusionProblems(V, GaussianField)": "must be a family of fields, .*; got the class `GaussianField`",
    "DiffusionProblems(mesh, GaussianField())": r"`DiffusionProblems\(space=\.\.\.\)` must be a `FunctionSpace`",
    "DiffusionProblems(vectors, GaussianField())": "needs a scalar Lagrange space on a grid",
    "UNet(width=0)": r"`UNet\(width=\.\.\.\)` must be a positive integer; got 0",
    "UNet(in_channels=1.5)": r"`UNet\(in_channels=\.\.\.\)` must be a positive integer; got 1\.5",
    "UNet(depth=1.5)": r"`UNet\(depth=\.\.\.\)` must be a non-negative integer",
    "UNet(norm='batch')": r"`UNet\(norm=\.\.\.\)` must be \"instance\" or None; got 'batch'",
    "UNet(coordinates='yes')": r"`UNet\(coordinates=\.\.\.\)` must be True or False",
    "UNet(activation=torch.sigmoid)": r"`UNet\(activation=\.\.\.\)` must be a module such as `nn.Sigmoid\(\)`",
    "UNet(nonlinearity=torch.nn.ReLU)": "got the class `ReLU`",
    "UNet()(torch.rand(1, 1, 9, 9).double())": "this network computes in torch.float32; got images in torch.float64",
    "Muon(net.parameters())": r"`Muon\(named=\.\.\.\)` must be a network's `named_parameters\(\)`",
    "Muon(net)": "must be a network's `named_parameters",
    "Muon(net.named_parameters(), lr=nan)": r"`Muon\(lr=\.\.\.\)` must be a positive number; got nan",
    "Muon(net.named_parameters(), weight_decay=-1)": r"`Muon\(weight_decay=\.\.\.\)` must be a non-negative number",
    "Lift(UNet, lambda x: x, lambda x: x)": r"`Lift\(network=\.\.\.\)` must be a network, .*; got the class `UNet`",
    "Lift(net, 1.0, 2.0)": r"`Lift\(base=\.\.\.\)` must be a callable of the position x; got 1\.0",
    "BoundedLift(net, lambda x: x[..., 0], 'a', 1.0)": r"`BoundedLift\(lower=\.\.\.\)` must be a finite number",
    "PINN(2.5)": r"`PINN\(dim=\.\.\.\)` must be a positive integer; got 2\.5",
    "PINN(mesh)": r"`PINN\(dim=\.\.\.\)` must be a positive integer",
    "PINN(2, distance=3)": r"`PINN\(distance=\.\.\.\)` must be a callable of x, or None; got 3",
    "PINN(2, dtype=torch.int64)": r"`PINN\(dtype=\.\.\.\)` must be a floating-point type",
    "pinn(3.0)": r"must be a tensor of points \(\.\.\., 2\); got 3\.0",
    "pinn.at(x, torch.ones(3).double())": r"one entry for each of 10 points; got a tensor of shape \(3,\)",
    "pinn.at(x, torch.ones(10))": r"`weights` are torch.float32 and the points torch.float64",
    "deep_ritz(pinn, points, lambda x, u, g: u.long())": "returns torch.int64, .* computes in torch.float64",
    "strong_form(pinn, points, lambda x, u, g, l: u.float())": r"the residual returns torch.float32, .*`\.to\(x\)`",
    "fit_pinn(pinn, loss, steps=2.5)": r"`fit_pinn\(steps=\.\.\.\)` must be None or a positive integer; got 2\.5",
    "fit_pinn(pinn, loss, seconds='a')": r"`fit_pinn\(seconds=\.\.\.\)` must be None or a positive number; got 'a'",
    "fit_pinn(pinn, loss, steps=5, history=2.5)": r"`fit_pinn\(history=\.\.\.\)` must be a positive integer",
    "fit_pinn(pinn, loss, steps=5, adam_share=nan)": r"`fit_pinn\(adam_share=\.\.\.\)` must be a number from 0 to 1",
    "fit_pinn(pinn, 1.0, steps=5)": r"`fit_pinn\(loss=\.\.\.\)` must be a function without arguments .*; got 1\.0",
    "fit_pinn(PINN, loss, steps=5)": r"`fit_pinn\(network=\.\.\.\)` must be a network",
    "fit_pinn(pinn, lambda: torch.ones(()), steps=5)": "the loss does not depend on the network's parameters",
    "deep_ritz(pinn, points, weighted, 1.0)": r"`deep_ritz\(params=\.\.\.\)` must be a tuple .* `params=\(1\.0,\)`",
    "deep_ritz(pinn, points, weighted)": "the density takes .* k is missing",
    "deep_ritz(pinn, points, weighted, (V.function(u),))": r"`deep_ritz\(params\[0\]=\.\.\.\)` must be a number",
    "deep_ritz(pinn, x, weighted)": r"`deep_ritz\(points=\.\.\.\)` must be what `network.at\(x\)` returns; got",
    "deep_ritz(J, points, weighted)": r"`deep_ritz\(network=\.\.\.\)` must be a `PINN`",
    "deep_ritz(pinn, points, lambda x, u, g: g)": r"the density must return one number per point, shape \(10,\); got",
    "strong_form(pinn, points, lambda x, u, g: u)": r"must take \(x, u, grad_u, laplacian_u\)",
    "strong_form(pinn, points, lambda x, u, g, l: 1.0)": "the residual must return a tensor with one number per point",
    "mismatch(pinn, x, 'a')": r"`mismatch\(value=\.\.\.\)` must be a number, or a callable of x",
    "mismatch(pinn, x, lambda x: x)": "must give one number per point",
    "train_surrogate(net, V, loss, 5)": r"`train_surrogate\(energy=\.\.\.\)` must be an `Energy`",
    "train_surrogate(net, J, 3, 5)": r"`train_surrogate\(problems=\.\.\.\)` must be a callable of \(start, count\)",
    "train_surrogate(net, J, loss, True)": r"`train_surrogate\(steps=\.\.\.\)` must be a positive integer; got True",
    "train_surrogate(net, J, loss, 5, clip=nan)": r"`train_surrogate\(clip=\.\.\.\)` must be a non-negative number",
    "gauss_points(mesh, -1)": r"`gauss_points\(degree=\.\.\.\)` must be a non-negative integer; got -1",
    "gauss_points(V, 2)": r"`gauss_points\(mesh=\.\.\.\)` must be a `Mesh`; got FunctionSpace",
}

NUMBERS = dict.fromkeys(  # of other types than Python's
    (
        "Newton(rtol=np.float64(1e-8), max_iterations=np.int64(3))",
        "minimize(K, (np.float32(2),), method=CG(max_iterations=np.int64(100)))",
        "eigenmodes(J, M, np.int64(2))",
        "predict(net, J, images, tol=np.float32(0.1), max_cycles=np.int64(9))",
    )
)


def test_what_is_wrong_is_told() -> None:
    assert misunderstood(SETUP, METHODS | SOLVES | NETWORKS | NUMBERS) == {}
