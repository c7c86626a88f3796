"""Solutions along a path of problems."""
