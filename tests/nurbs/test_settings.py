"""What is wrong with an argument is said by the call: which one, what it must be, what it is, and what would work.

In a process of its own, for here the annotations are executed and would speak first.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = """
import torch
from nurbs import *
from splines import *
torch.manual_seed(0)
rows, cloud = torch.rand(30, 2).double(), torch.rand(30, 3).double()
grid, clouds, signal = torch.rand(9, 8, 3).double(), torch.rand(2, 50, 3), torch.randn(40).double()
curve, surface, t = Curve(torch.rand(5, 2).double()), Surface(torch.rand(5, 6, 3).double()), torch.zeros(1).double()
both = ("control_points", "knots")
"""
CASES = {
    "Curve([[0.0, 1.0], [1.0, 2.0]], degree=1)": "`control_points` must be a floating point tensor; got [[0.0, 1.0], ",
    "Curve(torch.ones(4, 2).long())": "got torch.int64. Convert them.",
    "Curve(rows, degree=True)": "`degree` of a `Curve` must be one int or one per direction (1); got True.",
    "Curve(rows, weights=1.0)": "`weights` must be a tensor of torch.float64; got 1.0.",
    "Curve(rows, knots=3)": "`knots[0]` must be a tensor of torch.float64; got 3.",
    "Curve(rows, sides='ab')": "`Curve(sides=...)` names 2 ends of parameter ranges; got 'ab'.",
    "Curve(rows, knot_gradient='gaussian', sigma='a')": "`Curve(sigma=...)` must be None or a positive number",
    "curve(0.5)": "`parameters` must be a tensor of torch.float64; got 0.5.",
    "curve.derivative(t, order=1.5)": "`order` must be 1 integer(s) >= 0, one per direction; got 1.5.",
    "curve.length(0)": "`measure(num_points=...)` must be None or a positive integer; got 0.",
    "curve.learn('knots', floor='a')": "`learn(floor=...)` must lie in [0, 1); got 'a'.",
    "insert_knots(curve, 0.5)": "`insert_knots` takes a list or tensor of knots for u; got 0.5.",
    "insert_knots(curve.learn('knots'), [0.5])": "takes a `Curve`, `Surface` or `Volume`; got an object of class "
    "`LearnedPatch`. Give its `.patch`.",
    "restrict(curve, 0.5)": "`restrict` takes a pair (start, end) for u, or None; got 0.5.",
    "split(curve, 0.5, direction='u')": "`direction` of a `Curve` must be 0; got 'u'.",
    "permute(surface, 1)": "`permute` of a `Surface` needs an order of [0, 1]; got 1.",
    "reparametrize(curve, 3)": "needs (start, end) with start < end or None",
    "transform(3, offset=(1, 2))": "`transform(patch)` takes a `Curve`, `Surface` or `Volume`; got 3.",
    "ruled(curve, 3)": "`ruled(first, second)` takes a `Curve`, `Surface` or `Volume`; got 3.",
    "compatible(curve, surface)": "`compatible` needs two patches of one kind; got Curve(",
    "revolve(surface, axis=(0, 1))": "`revolve` needs an axis and a point of three coordinates; got shapes (2,)",
    "line((0, 0), (1, 1, 1))": "`line` needs points of as many coordinates; got (0, 0) and (1, 1, 1).",
    "disk(center=3.0)": "`disk` needs a centre of two or three coordinates; got shape ().",
    "arc(radius='wide')": "`arc(radius=...)` must be numbers or a tensor of them; got 'wide'.",
    "disk_patches(-1)": "`disk_patches(radius=...)` must be a positive number; got -1.",
    "disk_patches(core='a')": "`disk_patches(core=...)` must lie between 0 and 0.7071; got 'a'.",
    "isogeometric_space(3, 2)": "`isogeometric_space(patches)` takes a `Curve`, `Surface` or `Volume`; got 3.",
    "isogeometric_space(surface, 2, rational=1)": "`isogeometric_space(rational=...)` must be True or False; got 1.",
    "fit_curve(rows, 6.0)": "`num_points` of a `fit_curve` must be one int or one per direction (1); got 6.0.",
    "fit_curve(rows, 6, degree='3')": "`degree` of a `fit_curve` must be one int or one per direction (1); got '3'.",
    "fit_curve(rows, 6, free=None)": '`fit_curve(free=...)` takes "control_points" and any of "knots", "weights"',
    "fit_curve(rows, 6, parameters=[0.5] * 30)": "`parameters` must be a tensor of torch.float64; got an object",
    "fit_curve(rows, 6, weights=2.0)": "`weights` must be a tensor of torch.float64; got 2.0.",
    "fit_curve(rows, 6, smooth=1.0)": "`fit_curve` has no option `smooth`. Did you mean 'smoothing'?",
    "fit_curve(rows, 6, smoothing='a')": "`fit_curve(smoothing=...)` must be a finite number, smoothing >= 0; got 'a'.",
    "fit_curve(rows, 6, free=both, max_iterations=-2)": "must be an integer, max_iterations >= 0; got -2.",
    "fit_curve(rows, 6, free=both, rtol=-1)": "`fit_curve(rtol=...)` must be None or a number, 0 < rtol < 1; got -1.",
    "fit_curve(rows, 6, projections=1.5)": "must be an integer, projections >= 0; got 1.5.",
    "fit_curve(rows, 6, progress=3)": "must be None or a function of the iteration and the residuals; got 3.",
    "fit_curve(rows, 6, throw='no')": "`fit_curve(throw=...)` must be True or False; got 'no'.",
    "fit_curve(None, 6)": "`fit_curve(points=...)` must be numbers or a tensor of them; got None.",
    "fit_surface(grid, (5.0, 5))": "`shape` of a `fit_surface` must be one int or one per direction (2); got (5.0, 5).",
    "fit_surface(grid, (5, 5), uv=3)": "`uv` of a `fit_surface` must be one Tensor or one per direction (2); got 3.",
    "fit_surface(grid, (5, 5), knots=3)": "must be one Tensor or one per direction (2); got 3.",
    "foot_points(curve, [1.0, 2.0])": "`points` must be a tensor of torch.float64; got [1.0, 2.0].",
    "foot_points(curve, rows, starts=0)": "`foot_points(starts=...)` must be a positive integer; got 0.",
    "parametrize([0.0, 1.0])": "`parametrize(points)` needs points (*batch, q, d); got shape (2,).",
    "fit_clouds(clouds, (3, 4))": "`fit_clouds` needs a shape of at least 4 x 4 and a grid of at least 1 x 1",
    "fit_clouds(clouds, (4, 4), steps=-1)": "`fit_clouds(steps=...)` must be a non-negative integer; got -1.",
    "fit_clouds(clouds, (4, 4), lr=-1)": "`fit_clouds(lr=...)` must be a positive number; got -1.",
    "fit_clouds(clouds, (4, 4), stiffness=-1.0)": "`fit_clouds(stiffness=...)` must be a non-negative number",
    "RandomPatches(num_points=2.5)": "`RandomPatches(num_points=...)` must be a positive integer; got 2.5.",
    "RandomPatches(levels=())": "`RandomPatches(levels=...)` must be integers of at least 4; got ().",
    "SplineNet(5)": "`SplineNet(shape=...)` needs two numbers, 4 or more; got 5.",
    "SplineNet((5, 5), k=0)": "`SplineNet(k=...)` must be a positive integer; got 0.",
    "chamfer(3, clouds)": "`chamfer(a=...)` must be a tensor of points (*batch, points, coordinates); got 3.",
    "surface_distance(surface, 3)": "`surface_points(surface)` takes a `Surface`; got 3.",
    "cloud_frame(clouds.long())": "`cloud_frame(points)` needs floating point clouds; got a tensor",
    "tessellate(curve, 1.5)": "at least 1 subdivision; got a batch of shape () and 1.5.",
    "plot(curve, subdivisions=0)": "`plot(subdivisions=...)` must be None or a positive integer; got 0.",
    "read_geometry(3)": "`read_geometry(path=...)` must be a path; got 3.",
    "write_geometry('x.obj', surface, subdivisions='a')": "is a number >= 1 for .obj and .vtu files; got 'a'",
    "write_geometry('x.vtu', surface, fields={'a': 3})": "fields['a']=...)` must be a tensor of coefficients",
    "fit_piecewise(signal, True)": "`fit_piecewise(pieces=...)` must be a positive whole number; got True.",
    "fit_piecewise(signal, 3, degree=1.5)": "must be 0 to 5, one or one per piece; got 1.5.",
    "fit_piecewise(signal, penalty='a')": "`fit_piecewise(penalty=...)` must be a finite number of at least 0",
    "fit_piecewise(signal, 3, min_size=2.5)": "must exceed the degree, as d + 1 samples determine a polynomial; got",
    "fit_piecewise(signal, 3, weights=[1.0] * 40)": "`fit_piecewise(weights=...)` must be a tensor, or None",
    "fit_piecewise(signal, 3, throw=None)": "`fit_piecewise(throw=...)` must be True or False; got None.",
    "PiecewisePolynomial(3, vector='a')": "`fit_piecewise(vector=...)` must be True or False; got 'a'.",
}
SCRIPT = """
import json, sys
found = {}
for call in json.loads(sys.argv[1]):
    try:
        found[call] = f"nothing: {eval(call)!r}"
    except (TypeError, ValueError) as error:
        found[call] = str(error)
    except Exception as error:
        found[call] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    command = [sys.executable, "-c", SETUP + SCRIPT, json.dumps(list(CASES))]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("call", CASES)
def test_wrong_arguments_are_named(call: str, told: dict[str, str]) -> None:
    assert CASES[call] in told[call]
