"""Synchronisation: planted labels come back, whatever is missing or wrong; limits hold; errors say what to do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch.multigraph.labels import compact_labels, matchings_of_labels

KINDS = ("cliques", "spectral", "projected_power")
every_kind = pytest.mark.parametrize("kind", KINDS)


def counts_of(labels: torch.Tensor) -> torch.Tensor:
    """Nodes of each graph."""
    return (labels >= 0).sum(1)


@every_kind
@pytest.mark.parametrize("is_limited", [True, False])
@pytest.mark.parametrize(("graphs", "nodes", "corrupted"), [(6, 8, 0.2), (12, 6, 0.3), (16, 12, 0.4)])
def test_planted_permutations_survive_wrong_matchings(
    kind, is_limited: bool, graphs: int, nodes: int, corrupted: float, planted_matchings
):
    for seed in range(5):
        labels, pairs, given_matchings = planted_matchings(seed, graphs, nodes, corrupted)
        counts = torch.full((graphs,), nodes)
        assert gm.cycle_consistency(given_matchings, pairs, counts) < 0.75
        found = gm.synchronize_matchings(given_matchings, pairs, counts, nodes if is_limited else None, kind)
        assert torch.equal(found, compact_labels(labels))


@every_kind
def test_planted_permutations_survive_missing_matches(kind, planted_matchings):
    labels, pairs, given_matchings = planted_matchings(1, 10, 6, corrupted=0.1, missing=0.3)
    found = gm.synchronize_matchings(given_matchings, pairs, torch.full((10,), 6), 6, kind)
    assert torch.equal(found, compact_labels(labels))


@every_kind
def test_missing_pairs_are_bridged(kind, planted_matchings):
    labels, pairs, given_matchings = planted_matchings(2, 5, 4, corrupted=0.0)
    ring = [i for i, (a, b) in enumerate(pairs.tolist()) if b - a in (1, 4)]
    found = gm.synchronize_matchings(given_matchings[ring], pairs[ring], torch.full((5,), 4), 4, kind)
    assert torch.equal(found, compact_labels(labels))


@every_kind
@given(seed=st.integers(0, 2**31), counts=st.lists(st.integers(1, 5), min_size=3, max_size=6))
def test_consistent_partial_matchings_of_unequal_graphs_come_back(kind, seed: int, counts: list[int]):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((len(counts), max(counts)), -1)
    for graph, count in enumerate(counts):
        labels[graph, :count] = torch.randperm(7, generator=generator)[:count]
    pairs = torch.combinations(torch.arange(len(counts)))
    matchings = matchings_of_labels(labels, pairs)
    found = gm.synchronize_matchings(matchings, pairs, torch.tensor(counts), None, kind)
    assert torch.equal(found, compact_labels(labels))


@every_kind
@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    spare=st.sampled_from([None, 0, 2]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_matchings_give_distinct_labels_within_the_universe(kind, seed: int, counts: list[int], spare, share):
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(len(counts)))
    pairs = pairs[torch.rand(len(pairs), generator=generator) < 0.7]
    matchings = torch.full((len(pairs), max(counts)), -1)
    for row, (a, b) in zip(matchings, pairs.tolist(), strict=True):
        size = min(counts[a], counts[b])
        row[torch.randperm(counts[a], generator=generator)[:size]] = torch.randperm(counts[b], generator=generator)[
            :size
        ]
        row[torch.rand(row.shape, generator=generator) > share] = -1
    universe = None if spare is None else max(counts) + spare
    labels = gm.synchronize_matchings(matchings, pairs, torch.tensor(counts), universe, kind)
    assert labels.shape == (len(counts), max(counts))
    for row, count in zip(labels.tolist(), counts, strict=True):
        assert len(set(row[:count])) == count
        assert row[count:] == [-1] * (max(counts) - count)
        assert min(row[:count], default=0) >= 0
        assert universe is None or max(row, default=-1) < universe
    agreed = gm.cycle_consistency(matchings_of_labels(labels, pairs), pairs, torch.tensor(counts))
    assert agreed == 1.0


@every_kind
def test_the_better_half_of_a_conflict_wins(kind):
    pairs = torch.combinations(torch.arange(5))
    matchings = torch.tensor([[0, 1]]).repeat(len(pairs), 1)
    matchings[0] = torch.tensor([1, 0])
    labels = gm.synchronize_matchings(matchings, pairs, torch.full((5,), 2), 2, kind)
    assert labels.tolist() == [[0, 1]] * 5


@every_kind
def test_one_match_of_many_does_not_join_two_elements(kind):
    pairs = torch.combinations(torch.arange(6))
    same = torch.tensor([(a < 3) == (b < 3) or (a, b) == (0, 3) for a, b in pairs.tolist()])
    matchings = torch.where(same, 0, -1)[:, None]
    labels = gm.synchronize_matchings(matchings, pairs, torch.ones(6, dtype=torch.int64), None, kind)
    assert labels[:, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_projected_power_confirms_what_cliques_confirm_and_more(planted_matchings):
    gained = 0
    for seed in range(8):
        _, pairs, matchings = planted_matchings(seed, 8, 8, corrupted=0.5)
        confirmed = []
        for kind in ("cliques", "projected_power"):
            labels = gm.synchronize_matchings(matchings, pairs, torch.full((8,), 8), 8, kind)
            confirmed.append(int((matchings_of_labels(labels, pairs) == matchings).sum()))
        assert confirmed[1] >= confirmed[0]
        gained += confirmed[1] > confirmed[0]
    assert gained > 0


def test_the_universe_keeps_its_largest_elements():
    # Two of four graphs share an element, one node of each is alone: three elements hold what four would.
    pairs = torch.combinations(torch.arange(3))
    matchings = torch.tensor([[0, -1], [0, -1], [0, -1]])
    labels = gm.synchronize_matchings(matchings, pairs, torch.full((3,), 2), 2)
    assert labels.tolist() == [[0, 1]] * 3
    assert gm.synchronize_matchings(matchings, pairs, torch.full((3,), 2)).tolist() == [[0, 1], [0, 2], [0, 3]]


PAIRS = torch.tensor([[0, 1], [1, 2]])
MATCHINGS = torch.tensor([[0, 1], [1, -1]])
COUNTS = torch.tensor([2, 2, 2])


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"assignment": MATCHINGS.float()}, TypeError, "assignment must be an int64 tensor"),
        ({"assignment": MATCHINGS[0]}, ValueError, r"assignment must have shape \(p, n\)"),
        ({"assignment": torch.tensor([[0, 0], [1, -1]])}, ValueError, "assignment must hold different nodes"),
        ({"assignment": torch.tensor([[0, 2], [1, -1]])}, ValueError, "assignment must hold different nodes"),
        ({"assignment": torch.tensor([[0, -2], [1, -1]])}, ValueError, "assignment must hold different nodes"),
        ({"node_counts": torch.tensor([2, 2, 1])}, ValueError, "assignment must hold different nodes"),
        ({"node_counts": torch.tensor([1, 2, 2])}, ValueError, "assignment must hold different nodes"),
        ({"pairs": PAIRS[:1]}, ValueError, r"pairs must have shape \(2, 2\)"),
        ({"pairs": torch.tensor([[0, 1], [1, 3]])}, ValueError, r"pairs must hold node indices in \[0, 3\)"),
        ({"pairs": torch.tensor([[0, 1], [1, 0]])}, ValueError, "pairs must hold two different graphs each"),
        ({"pairs": torch.tensor([[0, 1], [2, 2]])}, ValueError, "pairs must hold two different graphs each"),
        ({"universe_size": 1}, ValueError, "universe_size must be at least 2"),
        ({"kind": "best"}, ValueError, "kind must be one of cliques, spectral, projected_power; got 'best'"),
    ],
    ids=str,
)
def test_errors_name_the_argument(changes: dict, error: type[Exception], text: str):
    arguments = {"assignment": MATCHINGS, "pairs": PAIRS, "node_counts": COUNTS}
    with pytest.raises(error, match=f"^synchronize_matchings: {text}"):
        gm.synchronize_matchings(**{**arguments, **changes})


def test_options_are_checked():
    with pytest.raises(ValueError, match="Synchronize: kind must be one of"):
        gm.Synchronize("star")
    with pytest.raises(ValueError, match="Synchronize: max_gap must be at least 0"):
        gm.Synchronize(max_gap=-1.0)
    with pytest.raises(ValueError, match="AllPairs: max_gap must be at least 0"):
        gm.AllPairs(max_gap=-1.0)
