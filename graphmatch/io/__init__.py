"""Files of matching problems that other programs read and write."""

from graphmatch.io.dd import read_dd, read_multigraph_dd, write_dd, write_multigraph_dd

__all__ = ["read_dd", "read_multigraph_dd", "write_dd", "write_multigraph_dd"]
