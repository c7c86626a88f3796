"""Function spaces: dofs numbered over a mesh, and the maps from dofs to points and back."""
