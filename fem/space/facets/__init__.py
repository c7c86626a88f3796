"""What facets mean to functions: two sides of one, and large ones on which small ones lie."""
