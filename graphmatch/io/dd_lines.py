"""The lines of a .dd file, checked one by one: every complaint names the file and the line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from graphmatch import _check
from graphmatch.io.files import read_bytes
from graphmatch.io.words import COST_RULE, shown

# Comments; coordinates of the nodes and neighbours, which drawings and other formulations use.
_IGNORED = frozenset({b"c", b"i0", b"i1", b"n0", b"n1"})
_MOST_NODES = 2**31 - 1  # numbers of pairs of nodes then fit into 64 bits
_SIZES = "p n1 n2 assignments pairs"
_OPEN = "0 there leaves the number open."
_COST_CURE = "Leave an assignment out to forbid it."


class MultigraphFileError(ValueError):
    """A file has `gm` blocks where one pair of graphs was asked for."""


class _LineError(Exception):
    """Rule, received value and cure of a line that breaks the format."""


@dataclass
class Block:
    """The lines of one pair of graphs.

    Attributes:
        graphs: The two numbers of the `gm` line; None in a file of a single pair.
        sizes: n1, n2 and the declared numbers of assignments and pairs, 0 = not declared; None before the `p` line.
        rows: Node of graph 1 of each assignment.
        columns: Node of graph 2 of each assignment.
        costs: Cost of each assignment.
        firsts: An assignment of each pair.
        seconds: The other assignment of each pair.
        pair_costs: Cost of each pair.
    """

    graphs: tuple[int, int] | None = None
    sizes: tuple[int, int, int, int] | None = None
    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    pair_costs: list[float] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def declare(self, line: bytes, fields: list[bytes]) -> None:
        """Takes a `p` line."""
        try:
            n1, n2, assignments, pairs = (int(text) for text in fields[1:])
        except ValueError:
            raise _syntax(_SIZES, line) from None
        if min(n1, n2, assignments, pairs) < 0:
            raise _LineError("declare sizes of at least 0", shown(line), "Write the numbers of nodes and lines.")
        if max(n1, n2) > _MOST_NODES:
            raise _LineError(f"declare at most {_MOST_NODES} nodes", max(n1, n2), "Is it the `p` line of a .dd file?")
        if self.sizes is not None:
            cure = "Write several pairs of graphs as blocks that begin with a `gm i j` line."
            raise _LineError("not declare sizes a second time", shown(line), cure)
        self.sizes = (n1, n2, assignments, pairs)

    def add_assignment(self, line: bytes, fields: list[bytes]) -> None:
        """Takes an `a` line."""
        n1, n2, declared, _ = self._declared(line)
        try:
            _, number_text, row_text, column_text, cost_text = fields
            number, row, column = int(number_text), int(row_text), int(column_text)
            cost = float(cost_text)
        except ValueError:
            raise _syntax("a id node1 node2 cost", line) from None
        count = len(self.rows)
        if number != count:
            raise _LineError(f"have the id {count}", number, "Number the assignments 0, 1, 2, ... in their order.")
        if declared and count >= declared:
            cure = f"Correct the `p` line; {_OPEN}"
            raise _LineError(f"not follow the {declared} assignments that are declared", shown(line), cure)
        if not (0 <= row < n1 and 0 <= column < n2):
            rule = f"have a node1 in [0, {n1}) and a node2 in [0, {n2})"
            raise _LineError(rule, f"{row} and {column}", "Count the nodes from 0, or correct the `p` line.")
        if (row, column) in self._seen:
            received = f"{row} and {column} again"
            raise _LineError("assign two nodes that no line before it assigns", received, "Keep one of the lines.")
        if not -_check.LARGEST_COST <= cost <= _check.LARGEST_COST:
            raise _LineError(COST_RULE, cost, _COST_CURE)
        self._seen.add((row, column))
        self.rows.append(row)
        self.columns.append(column)
        self.costs.append(cost)

    def add_pair(self, line: bytes, fields: list[bytes]) -> None:
        """Takes an `e` line."""
        declared = self._declared(line)[3]
        try:
            _, first_text, second_text, cost_text = fields
            first, second, cost = int(first_text), int(second_text), float(cost_text)
        except ValueError:
            raise _syntax("e id1 id2 cost", line) from None
        count = len(self.rows)
        if not (0 <= first < count and 0 <= second < count and first != second):
            rule = f"name two different ones of the {count} assignments before it"
            raise _LineError(rule, f"{first} and {second}", "List the assignments first; their ids count from 0.")
        if declared and len(self.firsts) >= declared:
            cure = f"Correct the `p` line; {_OPEN}"
            raise _LineError(f"not follow the {declared} pairs that are declared", shown(line), cure)
        if not -_check.LARGEST_COST <= cost <= _check.LARGEST_COST:
            raise _LineError(COST_RULE, cost, _COST_CURE)
        self.firsts.append(first)
        self.seconds.append(second)
        self.pair_costs.append(cost)

    def close(self) -> None:
        """Checks that everything declared has come."""
        if self.sizes is None:
            cure = "A file of one pair of graphs, and each block of a file of several, begins with its sizes."
            raise _LineError(f"be followed by a line `{_SIZES}`", "the end", cure)
        for kind, declared, count in (
            ("assignments", self.sizes[2], len(self.rows)),
            ("pairs", self.sizes[3], len(self.firsts)),
        ):
            if count < declared:
                cure = f"The file is cut off, or its `p` line is wrong; {_OPEN}"
                raise _LineError(f"be followed by the rest of the {declared} declared {kind}", f"{count} so far", cure)

    def _declared(self, line: bytes) -> tuple[int, int, int, int]:
        if self.sizes is None:
            raise _LineError("follow a `p` line", shown(line), f"Begin with `{_SIZES}`.")
        return self.sizes


def read_single(where: str, path: Path) -> Block:
    """Returns the only block of a file without `gm` lines."""
    return _read(where, path, multigraph=False)[0]


def read_blocks(where: str, path: Path) -> list[Block]:
    """Returns the blocks of a file with `gm` lines: each pair of graphs once, each graph of one size."""
    return _read(where, path, multigraph=True)


def _read(where: str, path: Path, multigraph: bool) -> list[Block]:
    blocks: list[Block] = [] if multigraph else [Block()]
    pairs: set[frozenset[int]] = set()
    nodes: dict[int, int] = {}
    place = last = 1
    try:
        for number, line in enumerate(read_bytes(where, path).splitlines(), start=1):
            place = number
            fields = line.split()
            if not fields or fields[0] in _IGNORED:
                continue
            if fields[0] != b"gm":
                if not blocks:
                    cure = "Read a file of one pair of graphs with read_dd."
                    raise _LineError("follow a line `gm i j`", shown(line), cure)
                _take(blocks[-1], line, fields)
                if fields[0] == b"p":
                    _check_nodes(blocks[-1], nodes)
            elif multigraph:
                place = last
                if blocks:
                    blocks[-1].close()
                place = number
                blocks.append(Block(_graphs(line, fields, pairs)))
            else:
                text = f"line {number} of {path.name}"
                rule = "not begin a block of a multi-graph file"
                cure = "Read the file with read_multigraph_dd."
                raise MultigraphFileError(_check.message(where, text, rule, shown(line), cure))
            last = number
        place = last
        if not blocks:
            cure = "Read a file of one pair of graphs with read_dd."
            raise _LineError("be followed by a line `gm i j`", "the end", cure)
        blocks[-1].close()
    except _LineError as error:
        rule, received, cure = error.args
        raise ValueError(_check.message(where, f"line {place} of {path.name}", rule, received, cure)) from None
    return blocks


_TAKERS = {b"p": Block.declare, b"a": Block.add_assignment, b"e": Block.add_pair}


def _take(block: Block, line: bytes, fields: list[bytes]) -> None:
    taker = _TAKERS.get(fields[0])
    if taker is None:
        cure = "Is it a .dd file? Comments begin with c."
        raise _LineError("begin with one of p, a, e, gm, c, i0, i1, n0, n1", shown(line), cure)
    _check_plain(line)
    taker(block, line, fields)


def _check_plain(line: bytes) -> None:
    # int() and float() would skip underscores between digits.
    if b"_" in line:
        raise _LineError("hold plain numbers", shown(line), "Write them without underscores.")


def _graphs(line: bytes, fields: list[bytes], pairs: set[frozenset[int]]) -> tuple[int, int]:
    """Returns the numbers of a `gm` line, and adds them to the pairs that have come."""
    _check_plain(line)
    try:
        _, first_text, second_text = fields
        first, second = int(first_text), int(second_text)
    except ValueError:
        raise _syntax("gm i j", line) from None
    if min(first, second) < 0 or first == second:
        raise _LineError("name two different graphs by numbers of at least 0", shown(line), "Count them from 0.")
    if frozenset((first, second)) in pairs:
        raise _LineError("name a pair of graphs that has no block before it", shown(line), "Merge the two blocks.")
    pairs.add(frozenset((first, second)))
    return first, second


def _check_nodes(block: Block, nodes: dict[int, int]) -> None:
    """Checks that a graph has as many nodes as in the blocks before."""
    for graph, count in zip(block.graphs or (), block.sizes or (), strict=False):
        known = nodes.setdefault(graph, count)
        if known != count:
            rule = f"give graph {graph} the {known} nodes of the blocks before it"
            raise _LineError(rule, count, "Correct one of the `p` lines.")


def _syntax(form: str, line: bytes) -> _LineError:
    return _LineError(f"have the form `{form}`", shown(line), "Write whole numbers, and costs as decimal numbers.")
