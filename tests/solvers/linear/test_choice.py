"""The default linear method follows size, dimension, kind of mesh and kind of problem."""

from fem import FunctionSpace, Lagrange, unit_cube, unit_square
from solvers.linear.algebraic_multigrid import AlgebraicMultigrid
from solvers.linear.choice import default_linear
from solvers.linear.direct import Direct
from solvers.linear.multigrid import Multigrid


def test_large_energies_on_grids_get_multigrid_and_other_large_solids_algebraic_multigrid():
    cube, tetrahedra = (FunctionSpace(unit_cube(20, cell=cell), Lagrange(1)) for cell in ("hexahedron", "tetrahedron"))
    assert isinstance(default_linear(cube, True), Multigrid)
    assert isinstance(default_linear(tetrahedra, True), AlgebraicMultigrid)
    assert isinstance(default_linear(cube, False), Direct)


def test_small_and_plane_problems_are_solved_directly_but_many_small_ones_together():
    small, plane = (
        FunctionSpace(unit_square(20), Lagrange(1)),
        FunctionSpace(unit_square(130, cell="triangle"), Lagrange(1)),
    )
    assert isinstance(default_linear(small, True), Direct)
    assert isinstance(default_linear(small, True, items=64), Multigrid)
    assert isinstance(default_linear(plane, True), Direct)
