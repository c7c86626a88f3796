"""Sparse matrices of small blocks: their products, and aggregates of what they couple."""
