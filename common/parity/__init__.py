"""The parity checks: comparisons of every backend with the reference."""
