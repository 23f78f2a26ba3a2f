"""Files of matching problems that other programs read and write."""

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
    "read_dd",
    "read_multigraph_dd",
    "read_qaplib",
    "read_qaplib_solution",
    "write_dd",
    "write_multigraph_dd",
    "write_qaplib",
    "write_qaplib_solution",
]
