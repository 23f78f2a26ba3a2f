"""What pictures that show names and texts of users share."""

from __future__ import annotations

# Between two dollar signs matplotlib reads a formula, and fails where there is none.
LITERAL_TEXT = {"text.parse_math": False, "axes.formatter.use_mathtext": False}
