"""Spaces of vector fields whose dofs are moments on edges, faces and cells (Raviart–Thomas, Nédélec)."""
