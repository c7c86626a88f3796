"""Patches through points: linear least squares, free knots and weights, parameters."""
