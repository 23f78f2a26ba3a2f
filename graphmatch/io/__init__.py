"""Matching problems of other programs: their files, graphs and matrices."""

from graphmatch.io.affinity_matrix import from_affinity_matrix, to_affinity_matrix
from graphmatch.io.dd import read_dd, read_multigraph_dd, write_dd, write_multigraph_dd
from graphmatch.io.interop import LabelledProblem, from_networkx, from_pyg, graph_from_networkx, graph_from_pyg
from graphmatch.io.qaplib import (
    QaplibSolution,
    read_qaplib,
    read_qaplib_solution,
    write_qaplib,
    write_qaplib_solution,
)

__all__ = [
    "LabelledProblem",
    "QaplibSolution",
    "from_affinity_matrix",
    "from_networkx",
    "from_pyg",
    "graph_from_networkx",
    "graph_from_pyg",
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
