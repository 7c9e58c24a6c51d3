"""Our own learners: compiled kernels that learn every row exactly, one algorithm a file."""
