"""Spline spaces on patches, glued where their sides coincide."""
