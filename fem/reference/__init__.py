"""Reference cells, quadrature and bases: nothing here ever sees a mesh."""
