"""The parity checks: every backend held against the reference."""
