"""Calls that cannot work say what would: settings, arguments of another kind, misspelt names, and their like."""

from tests.wrong_calls import misunderstood

SETUP = """
from math import inf, nan
import numpy as np
import torch
from fem import *
mesh = unit_square(4)
V, vectors = FunctionSpace(mesh, Lagrange(1)), FunctionSpace(mesh, Lagrange(2), components=2)
other = FunctionSpace(unit_square(3), Lagrange(1))
splines = FunctionSpace(mesh, BSpline.uniform((4, 4), 2))
tagged = FunctionSpace(mesh.with_tags(cell_tags={"steel": [0], "iron": list(range(1, 16))}), Lagrange(1))
u = torch.zeros(V.shape, dtype=V.dtype)
density = lambda x, u, g: 0.5 * g.square().sum(-1) - u
weighted = lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u
D = Dirichlet(V, {"boundary": 0.0})
J = Energy(V, density, D)
corners, cell = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0, 1, 2]])
"""

SETTINGS = {
    "unit_square((4, 4))": r"`unit_square\(nx=\.\.\.\)` must be a positive integer; got \(4, 4\)\. Write `unit_sq",
    "unit_square(0)": r"`unit_square\(nx=\.\.\.\)` must be a positive integer; got 0",
    "unit_square(4.5)": "must be a positive integer; got 4.5",
    "unit_square(True)": "must be a positive integer; got True",
    'unit_square(4, "triangle")': r"`unit_square\(ny=\.\.\.\)` must be a positive integer; got 'triangle'",
    'unit_square(4, cell="triangel")': "got 'triangel'. Did you mean 'triangle'?",
    "unit_square(4, dtype=torch.int64)": r"`box\(dtype=\.\.\.\)` must be a floating-point type",
    'unit_square(4, dtype="float32")': r"must be a floating-point type, .* got 'float32'",
    "unit_interval((4,))": r"`unit_interval\(n=\.\.\.\)` must be a positive integer",
    'unit_cube(2, 2, "tetrahedron")': r"`unit_cube\(nz=\.\.\.\)` must be a positive integer",
    "box(0, 1, 4)": r"`box\(lower=\.\.\.\)` must be a sequence with one entry per direction; got 0",
    "box((0, 0), (1, inf), (4, 4))": "needs finite lower < upper in every direction",
    'box((0, 0), ("a", 1), (4, 4))': "must be numbers; got 'a'",
    'box((0, 0), (1, 1), (4, "a"))': "positive whole numbers of cells",
    "Lagrange(4)": r"`Lagrange\(degree=\.\.\.\)` must be 1, 2 or 3; got 4",
    "Lagrange(True)": "must be 1, 2 or 3; got True",
    "Lagrange(2.5)": "must be 1, 2 or 3; got 2.5",
    "BSpline.uniform((4, 4), 2.5)": r"`degree` must be one integer or one per direction \(2\); got 2\.5",
    "BSpline.uniform((4.5, 4), 2)": r"needs at least one span per direction; got \(4\.5, 4\)",
    "BSpline.uniform(True, 2)": "needs at least one span per direction; got",
    "BSpline(3, 2)": r"`BSpline\(knots=\.\.\.\)` must be one knot vector per direction; got 3",
    "BSpline([0, 0, 1, 1], 1)": r"`BSpline\(knots\[0\]=\.\.\.\)` must be a tensor",
    "FunctionSpace(mesh, Lagrange(1), 0)": r"`FunctionSpace\(components=\.\.\.\)` must be None or a positive integer",
    "FunctionSpace(mesh, Lagrange(1), 2.0)": "must be None or a positive integer; got 2.0",
    "FunctionSpace(mesh, Lagrange(1), quadrature_degree=-1)": r"`FunctionSpace\(quadrature_degree=\.\.\.\)` must be",
    "FunctionSpace(mesh, Lagrange(1), quadrature_degree=2.5)": "or a non-negative integer; got 2.5",
    "Energy(V, density, derivatives=3)": "must be 0, 1 or 2, or a pair of them; got 3",
    'Energy(V, density, derivatives="1")': "must be 0, 1 or 2, or a pair of them; got '1'",
    "Energy(V, density, derivatives=True)": "must be 0, 1 or 2, or a pair of them; got True",
    "integrate(V, 1.0, degree=-1)": r"`integrate\(degree=\.\.\.\)` must be None or a non-negative integer; got -1",
    "Constant(torch.ones(2), shape=2)": r"`Constant\(shape=\.\.\.\)` must be a tuple, such as `\(2,\)`; got 2",
    "plot(V, u, scale=nan)": r"`plot\(scale=\.\.\.\)` must be a finite number; got nan",
    "plot(V, u, limits=(2, 1))": r"`plot\(limits=\.\.\.\)` must be \(lowest, highest\); got \(2, 1\)",
    "mesh.to(dtype=torch.int64)": r"`Mesh.to\(dtype=\.\.\.\)` must be a floating-point type",
    'compilation("now").__enter__()': '"always", "auto" or "never"; got \'now\'',
}

KINDS = {
    "FunctionSpace(mesh, 1)": r"`FunctionSpace\(element=\.\.\.\)` must be an element, such as `Lagrange\(1\)`; got 1",
    "FunctionSpace(mesh, Lagrange)": "got the class `Lagrange`, not an object: write `Lagrange",
    "FunctionSpace(unit_square, Lagrange(1))": r"must be a `Mesh`, such as `unit_square\(8\)`; got the function",
    "FunctionSpace(Lagrange(1), mesh)": r"`FunctionSpace\(mesh=\.\.\.\)` must be a `Mesh`",
    "MixedSpace(V, 1)": "must be a `FunctionSpace`; got 1",
    "MixedSpace([V, vectors])": "must be a `FunctionSpace`; got an object of class `list`",
    "MixedSpace(V, other)": "over the same mesh object",
    "Energy(density, V)": r"`Energy\(space=\.\.\.\)` must be a `FunctionSpace` or `MixedSpace`",
    "Energy(V, 3)": "`Energy` needs a callable; got int",
    'Energy(V, density, {"boundary": 0.0})': r"`Energy\(dirichlet=\.\.\.\)` must be `Dirichlet\(V, \{\.\.\.\}\)`",
    "Energy(V, density, Dirichlet)": "got the class `Dirichlet`",
    "Energy(V, density, Dirichlet(other, {'left': 0.0}))": "belongs to another space",
    "Energy(V, density, boundary=density)": r"`Energy\(boundary=\.\.\.\)` must be a mapping \{tag: density\}",
    'Energy(V, density, boundary={"left": 1.0})': "`Energy` needs a callable on 'left'; got float",
    "J(u.numpy())": r"`u` must be a tensor of shape \(\.\.\., 25\); got a NumPy array of shape \(25,\)",
    "J(0.0)": r"`u` must be a tensor of shape \(\.\.\., 25\); got 0\.0",
    "Energy(V, weighted)(u, (1.0,))": r"parameter 0 must be a number, .*; got \(1\.0,\)",
    "Energy(V, weighted)(u, np.ones(25))": "parameter 0 must be a number, .*; got a NumPy array",
    "Energy(V, weighted)(u, V)": "parameter 0 must be a number, .*; got FunctionSpace",
    "Energy(V, weighted)(u, torch.nn.Linear)": "parameter 0 must be a number, .*; got the class `Linear`",
    "Energy(V, weighted)(u, other.function(torch.ones(16).double()))": "is a field over another mesh",
    "Dirichlet(mesh, {'left': 0.0})": r"`Dirichlet\(space=\.\.\.\)` must be a `FunctionSpace`",
    "Dirichlet(V, 'boundary')": r"`Dirichlet\(values=\.\.\.\)` must be a mapping \{tag: value\}.*; got 'boundary'",
    "Dirichlet(V, ['boundary'])": "must be a mapping",
    "Dirichlet(V, {'left': [0.0]})": r"the Dirichlet value on 'left' must be a number, tensor, .*; got \[0\.0\]",
    "Dirichlet(V, {'left': lambda x: None})": "the Dirichlet value on 'left' must be a number, tensor, .*; got None",
    "Dirichlet(V, {'left': Lagrange(1)})": r"must be a number, tensor, .*; got Lagrange\(degree=1\)",
    "Dirichlet(V, {'left': other.function(torch.zeros(16).double())})": "is a field on another space",
    "Dirichlet(vectors, {('left', True): 0.0})": "the component must be an integer",
    "MeanZero(mesh)": "`MeanZero` takes a single function space; got Mesh",
    "Constant(1.0, shape=())": r"`Constant\(value=\.\.\.\)` must be a tensor",
    "by_cell_tag(3)": r"`by_cell_tag\(values=\.\.\.\)` must be a mapping \{tag: value\}",
    "by_cell_tag({'steel': None})": r"`by_cell_tag\(\{'steel': \.\.\.\}\)` must be a number or a tensor; got None",
    "gradient(u)": "`gradient` takes a field",
    "integrate(mesh, 1.0)": r"`integrate\(space=\.\.\.\)` must be a `FunctionSpace`",
    "l2_error(V, u, None)": r"`l2_error\(exact=\.\.\.\)` must be a callable of x, a number, dofs or a field; got None",
    "l2_error(V, u, lambda x: x)": r"the exact values must have shape \(16, 16\), one for each point x",
    "l2_error(V, u, lambda x: x[..., :1])": "the exact values must have shape",
    "h1_error(V, u, lambda x: x[..., 0], gradient=1.0)": r"`h1_error\(gradient=\.\.\.\)` must be a callable of x",
    "h1_error(V, u, lambda x: x[..., 0], gradient=lambda x: x[..., 0])": r"must have shape \(16, 16, 2\)",
    "h1_error(V, u, lambda x: torch.from_numpy(np.sin(x.detach().numpy()[..., 0])))": "give its gradient",
    "V.interpolate('a')": "`interpolate` needs a number, or a callable of x .*; got 'a'",
    "V.interpolate(lambda x: None)": "`interpolate` needs a number, or a callable of x .*; got None",
    "V.function(lambda x: x)": r"`values` must be a tensor of shape \(\.\.\., 25\); got the function",
    "V.evaluate(u, [[0.5, 0.5]])": r"`points` must be a tensor of shape \(m, 2\)",
    "V.evaluate(u, torch.ones(1, 2).double(), outside='a')": r"`evaluate\(outside=\.\.\.\)` must be None or a number",
    "V.evaluate(u, torch.ones(1, 2).double(), outside=True)": "must be None or a number, such as `math.nan`; got True",
    "V.evaluate(u, torch.ones(1, 2).long())": r"`points` must be torch.float64 .*; got torch.int64",
    "vectors.function(u)": "trailing shape",
    "splines.interpolate(lambda x: x[..., 0])": r"has no nodes; `project\(V, lambda x: ...\)` finds",
    "FunctionSpace(mesh, BSpline.uniform((3, 3), 2))": r"`BSpline\.uniform\(mesh\.grid, degree\)` fits",
    "Energy(vectors, weighted)(vectors.interpolate(0), torch.ones(25).double())": r"V = `FunctionSpace\(mesh, Lag",
    "V.interpolate(True)": "`interpolate` needs a number, or a callable of x .*; got True",
    "V.interpolate(lambda x: True)": "needs a number, or a callable of x .*; got True",
    "V.interpolate(lambda x: (4 * x[..., 0]).long())": r"got torch.int64 values; .* by `\.to\(x\.dtype\)`",
    "mesh.with_nodes(np.zeros((25, 2)))": r"must be a tensor of shape \(25, 2\); got a NumPy array",
    "mesh.curved(2, 3)": r"`curved\(mapping=\.\.\.\)` must be a callable of coordinates, or None; got 3",
    "mesh.curved(2, lambda x: 1.0)": "must be a callable that returns coordinates as a tensor",
    "Mesh(corners, cell, facet_tags=['left'])": r"`Mesh\(facet_tags=\.\.\.\)` must be a mapping",
    "Mesh(corners, cell, facet_tags={'left': 'a'})": "facet tag 'left' must be integers, a mask or a callable of",
    "Mesh(corners, cell, facet_tags={'left': [0.5]})": "facet tag 'left' must be integers",
    "Mesh(corners, cell, facet_tags={'left': lambda x: True})": "its callable must say of each vertex",
    "Mesh(corners, cell, facet_tags={'boundary': [0]})": "'boundary' always means the whole boundary",
    "Mesh(corners, cell, cell_tags={'a': lambda x: x[..., 0]})": "cell tag 'a' must be integers, a mask or a callable",
    "Mesh(corners, None)": "triangle cells must be integers",
    "read_mesh(3)": r"`read_mesh\(path=\.\.\.\)` must be the path of a file; got 3",
    "read_mesh('m.vtu', fields='u')": r"`read_mesh\(fields=\.\.\.\)` must be True or False; got 'u'",
    "Mesh(corners, cell, node_tags=[0])": r"`Mesh\(node_tags=\.\.\.\)` must be a mapping",
    "plot(3)": r"`plot\(V=\.\.\.\)` must be a function space or a mesh; got 3",
    "plot(V, u, 'ax')": r"`plot\(ax=\.\.\.\)` must be matplotlib Axes; got 'ax'",
    "write_vtk('a.vtu', V, u)": r"`write_vtk\(fields=\.\.\.\)` must be a mapping \{name: field\}",
    "write_vtk(V, 'a.vtu', {'u': u})": "files are written to a path, the first argument; got FunctionSpace",
    "write_vtk('a.vtu', V, {1: u})": "must be a mapping whose keys are names; got 1",
    "write_pvd('a.pvd', V, 3, {'u': u})": r"`write_pvd\(times=\.\.\.\)` must be a sequence of numbers; got 3",
    "write_pvd('a.pvd', V, [0, 'a'], {'u': u})": "needs one or more finite times",
}

WORDS = {
    "Dirichlet(V, {'lft': 0.0})": r"unknown facet tag 'lft'; this mesh has .* Did you mean 'left'\?",
    "Dirichlet(V, {'Boundary': 0.0})": r"Did you mean 'boundary'\?",
    "Dirichlet(V, {(): 0.0})": r"unknown facet tag \(\)",
    "V.dofs('rigth')": r"Did you mean 'right'\?",
    "Energy(V, density, boundary={'topp': density})": r"Did you mean 'top'\?",
    "Energy(V, density, boundary={('left', 0): density})": r"boundary=\.\.\.\)` takes facet tags, or pairs \(facet",
    "Energy(V, density, boundary={3: density})": r"takes facet tags, or pairs \(facet tag, cell tag\); got 3",
    "Energy(tagged, weighted, boundary={('left', 'stele'): density})": r"unknown cell tag 'stele'; .* 'steel'\?",
    "Energy(tagged, weighted)(u, by_cell_tag({'stel': 1.0, 'iron': 2.0}))": r"unknown cell tag 'stel'; .* 'steel'\?",
}

NUMBERS = dict.fromkeys(  # of other types than Python's
    (
        "FunctionSpace(mesh, Lagrange(np.int64(2)), np.int32(2), np.int64(3)).quadrature.domains()",
        "unit_square(np.int64(4), torch.tensor(4))",
        "box(np.zeros(2), torch.ones(2), np.array([4, 4]))",
        "Energy(V, weighted)(u, np.float32(2))",
        "Energy(V, weighted)(u, np.int64(2))",
        "integrate(V, np.float32(1), degree=np.int64(3))",
        "Dirichlet(vectors, {('left', np.int64(1)): np.float32(1)})",
        "V.interpolate(np.float64(1))",
    )
)


def test_what_is_wrong_is_told() -> None:
    assert misunderstood(SETUP, SETTINGS | KINDS | WORDS | NUMBERS) == {}
