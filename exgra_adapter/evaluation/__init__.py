"""Answers from a model, and scores for them."""
