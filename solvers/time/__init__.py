"""Evolution in time: steps that are stationary points of the same energies, one after the other."""
