"""Places for the nodes of graphs that have none: paths of edges become distances, the same graph always looks the same.

Algorithm: distances along edges, classical scaling of them, and majorisation of the stress
sum_ij (|x_i - x_j| - d_ij)^2 / d_ij^2. Cost O(n^3) once and O(n^2) per step.
Source: E. Gansner, Y. Koren, S. North, "Graph drawing by stress majorization", Graph Drawing 2004.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphmatch import _check

Places = NDArray[np.float64]
Edges = NDArray[np.int64]

_STEPS = 60
_LARGEST = 600  # nodes; of more than that no picture shows the structure
_NEARLY_COMPLETE = 0.9
_TIE = 1e-6


def layout_graph(nodes: int, edges: Edges) -> Places:
    """Returns places (n, 2) in the unit square, from the edges alone.

    Graphs without edges and nearly complete ones come on a circle, in the order of the nodes, and those of more than
    600 nodes on a spiral: there is nothing that places could show.

    Args:
        nodes: Number of nodes n.
        edges: (e, 2) pairs of nodes; directions, loops and repetitions do not matter.

    Example:
        >>> import numpy as np
        >>> from graphmatch import viz
        >>> places = viz.layout_graph(3, np.array([[0, 1], [1, 2]]))  # a path: the middle is in the middle
        >>> bool(np.allclose(places[1], (places[0] + places[2]) / 2))
        True
    """
    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    edges = edges[edges[:, 0] != edges[:, 1]]
    if nodes > _LARGEST:
        return _spiral(nodes)
    linked = np.zeros((nodes, nodes), dtype=bool)
    linked[edges[:, 0], edges[:, 1]] = linked[edges[:, 1], edges[:, 0]] = True
    if nodes < 3 or not linked.any() or linked.sum() > _NEARLY_COMPLETE * nodes * (nodes - 1):
        return unit_square(_circle(nodes))
    distances = _path_lengths(linked)
    places = _scaled(distances)
    return unit_square(_relaxed(_circle(nodes) if places is None else places, distances))


def check_places(where: str, places: Places) -> None:
    """Refuses nodes that lie nowhere."""
    bad = ~np.isfinite(places).all(axis=1)
    if bad.any():
        node = int(bad.argmax())
        received = f"{places[node].tolist()} for node {node}"
        raise ValueError(_check.message(where, "graphs", "have finite places", received, "Look for NaN upstream."))


def unit_square(places: Places) -> Places:
    """Returns places moved and scaled, without distortion, into the middle of the unit square."""
    if len(places) == 0:
        return places
    low, high = places.min(0), places.max(0)
    extent = float((high - low).max())
    return np.asarray((places - (low + high) / 2) / (extent if extent > 0 else 1.0) + 0.5)


def _circle(nodes: int) -> Places:
    angle = np.pi / 2 - 2 * np.pi * np.arange(nodes) / max(nodes, 1)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _spiral(nodes: int) -> Places:
    # Each node gets the same area of the disc.
    step = np.arange(nodes) + 0.5
    angle, radius = np.pi * (3 - np.sqrt(5)) * step, np.sqrt(step)
    return unit_square(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))


def _path_lengths(linked: NDArray[np.bool_]) -> Places:
    from scipy.sparse.csgraph import shortest_path

    lengths = shortest_path(linked.astype(np.float64), unweighted=True, directed=False)
    reached = np.isfinite(lengths)
    # Parts that no edge joins lie side by side.
    return np.where(reached, lengths, lengths[reached].max() + 1.0)


def _scaled(distances: Places) -> Places | None:
    """Returns the two main axes of the distances (classical scaling); None where they are not determined."""
    squares = distances**2
    centred = -0.5 * (squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean())
    values, vectors = np.linalg.eigh(centred)
    # A path needs one axis only, which is no tie.
    if values[-2] > _TIE * values[-1] > values[-2] - values[-3]:
        return None
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0.0))
    # Eigenvectors have no sign of their own.
    largest = np.abs(places).argmax(0)
    return np.asarray(places * np.where(places[largest, [0, 1]] < 0, -1.0, 1.0))


def _relaxed(places: Places, distances: Places) -> Places:
    nodes = len(distances)
    wanted = distances + np.eye(nodes)
    weights = wanted**-2.0 * (1 - np.eye(nodes))
    laplacian = np.diag(weights.sum(1)) - weights
    inverse = np.linalg.inv(laplacian + 1.0 / nodes)  # of the part that does not move all places alike
    for _ in range(_STEPS):
        away = places[:, None] - places[None, :]
        length = np.sqrt((away**2).sum(2))
        ratio = weights * distances / np.maximum(length, 1e-9)
        # Nodes in one place would never part.
        places = inverse @ (ratio.sum(1)[:, None] * places - ratio @ places)
    return np.asarray(places - places.mean(0))
