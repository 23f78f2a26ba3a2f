"""Benchmarks: speed beside quality, with the peers in the same run."""
