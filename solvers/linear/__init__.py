"""Linear solvers and preconditioners."""
