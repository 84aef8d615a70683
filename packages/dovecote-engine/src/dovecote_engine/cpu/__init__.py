"""What is computed on a CPU by kernels of our own."""
