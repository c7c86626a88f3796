"""Energies and weak forms: densities, parameters and constraints, and what is derived from them."""
