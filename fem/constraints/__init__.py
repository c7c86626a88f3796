"""Constraints that tie dofs to one another."""
