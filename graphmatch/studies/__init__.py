"""Experiments that anyone can repeat from the command line, with their reports."""
