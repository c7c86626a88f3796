"""Integrals by the program of a density."""
