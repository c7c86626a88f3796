"""Meshes, elements, function spaces and energies as differentiable tensors."""
