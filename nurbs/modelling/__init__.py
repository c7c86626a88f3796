"""New patches from old ones, and exact shapes."""
