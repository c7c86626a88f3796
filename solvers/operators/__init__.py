"""The Hessian as an operator: applied without a matrix, as a stencil, or assembled."""
