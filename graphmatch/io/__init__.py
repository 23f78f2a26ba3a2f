"""Files of matching problems that other programs read and write."""

from graphmatch.io.affinity_matrix import from_affinity_matrix, to_affinity_matrix
from graphmatch.io.dd import read_dd, read_multigraph_dd, write_dd, write_multigraph_dd
from graphmatch.io.qaplib import (
    QaplibSolution,
    read_qaplib,
    read_qaplib_solution,
    write_qaplib,
    write_qaplib_solution,
)

__all__ = [
    "QaplibSolution",
    "from_affinity_matrix",
    "read_dd",
    "read_multigraph_dd",
    "read_qaplib",
    "read_qaplib_solution",
    "to_affinity_matrix",
    "write_dd",
    "write_multigraph_dd",
    "write_qaplib",
    "write_qaplib_solution",
]
