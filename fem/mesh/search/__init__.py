"""Where points lie in a mesh, and the points of it nearest to others."""
