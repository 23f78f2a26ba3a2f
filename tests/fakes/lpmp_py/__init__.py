"""Stands in for the external package lpmp_py: its interface and its traps, on problems small enough to enumerate."""
