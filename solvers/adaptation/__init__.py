"""Meshes that follow the error: solve, estimate, mark, refine."""
