"""Where the nodes of two graphs are drawn: side by side, as they lie, or as a layout of their edges has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmatch import _check
from graphmatch.graphs import Graph
from graphmatch.viz.layout import Places, check_places, layout_graph, unit_square
from graphmatch.viz.paid import PaidCosts, partners

_GAP = 0.45  # between two graphs, each in a square of length 1
_COLUMN_GAP = 1.6
_IMAGE_GAP = 0.08
_MARGIN = 0.06
_BELOW = 0.15  # where nodes without a partner lie


def places_of(
    where: str, paid: PaidCosts, graphs: Sequence[Graph] | None, pictures: Sequence[NDArray[Any]] | None
) -> tuple[Places, Places]:
    """Returns the places of the nodes of both graphs, y up.

    Images have height 1 and stand in a row; places are then pixels of them.

    Raises:
        ValueError: If there are images, but no places.
    """
    given = [_given_places(where, graph) for graph in graphs] if graphs is not None else [None, None]
    if pictures is not None:
        return _on_images(where, given, pictures)
    left = layout_graph(paid.nodes[0], paid.edges[0].ends) if given[0] is None else unit_square(given[0])
    right = _beside(paid, left) if given[1] is None else unit_square(given[1])
    # A matching of nodes without places or edges is one between two columns.
    are_columns = graphs is None and not any(len(each.ends) for each in paid.edges)
    if are_columns:
        left, right = (_column(count) for count in paid.nodes)
    if len(left) and len(right):
        gap = _COLUMN_GAP if are_columns else _GAP
        right = right + np.array([left[:, 0].max() - right[:, 0].min() + gap, 0.0])
    return left, right


def _on_images(where: str, given: Sequence[Places | None], pictures: Sequence[NDArray[Any]]) -> tuple[Places, Places]:
    found = []
    for places, picture, (left, _) in zip(given, pictures, image_columns(pictures), strict=True):
        if places is None:
            rule, cure = "come with graphs whose nodes (n, 2) are pixels", "Pass graphs=, or leave the images out."
            raise ValueError(_check.message(where, "images", rule, "none", cure))
        # The centres of pixels are whole numbers; images end half a pixel further out.
        scaled = (places + 0.5) / picture.shape[0]
        found.append(np.stack([left + scaled[:, 0], 1.0 - scaled[:, 1]], axis=1))
    return found[0], found[1]


def image_columns(pictures: Sequence[NDArray[Any]]) -> list[tuple[float, float]]:
    """Returns the left edge and the width of images of height 1 in a row."""
    columns, left = [], 0.0
    for picture in pictures:
        width = picture.shape[1] / picture.shape[0]
        columns.append((left, width))
        left += width + _IMAGE_GAP
    return columns


def bounding_box(places: tuple[Places, Places], pictures: Sequence[NDArray[Any]] | None) -> tuple[Places, Places]:
    """Returns the lower left and the upper right corner around everything, with a margin for nodes."""
    corners = [np.array([[left, 0.0], [left + width, 1.0]]) for left, width in image_columns(pictures or [])]
    everything = np.concatenate([*places, *corners])
    if len(everything) == 0:
        everything = np.array([[0.0, 0.0], [1.0, 0.3]])
    low, high = everything.min(0), everything.max(0)
    # Flat things get some height, or there would be no axes.
    missing = np.maximum(np.array([0.3, 0.15]) - (high - low), 0.0) / 2
    return low - missing - _MARGIN, high + missing + _MARGIN


def _given_places(where: str, graph: Graph) -> Places | None:
    if graph.nodes.ndim != 2 or graph.nodes.shape[1] != 2:
        return None
    places = np.asarray(graph.nodes.detach().cpu().double().numpy())
    check_places(where, places)
    return places


def _column(count: int) -> Places:
    height = (np.arange(count) + 0.5) / max(count, 1)
    return np.stack([np.zeros(count), 1.0 - height], axis=1)


def _beside(paid: PaidCosts, left: Places) -> Places:
    """Returns the places of the partners; nodes without one lie in a row below."""
    partner = partners(paid.assignment, paid.nodes[1])
    alone = (partner < 0).nonzero()[0]
    places = left[partner] if len(left) else np.zeros((paid.nodes[1], 2))
    places[alone, 0] = (np.arange(len(alone)) + 0.5) / max(len(alone), 1)
    places[alone, 1] = (left[:, 1].min() if len(left) else 0.0) - _BELOW
    return places
