"""Benchmarks on a GPU; they are left out where there is none."""
