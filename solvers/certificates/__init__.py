"""How far a given function is from the solution: bounds, brackets and indicators."""
