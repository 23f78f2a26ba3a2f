"""Makes extended answers worse in three ways, as a careless or inventive caption writer would.

A larger share contains a smaller one of the same seed: what is broken at 25 % is broken at 50 % as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Literal, get_args

import numpy as np

from exgra_adapter.data.records import Record, Turn
from exgra_adapter.demo.scenes import MAX_LESIONS, MODALITIES, ORGANS, Scene, Side, Size, Topic, ask

Corruption = Literal["dropout", "swap", "hallucination"]


def corrupt(records: Sequence[Record], kind: Corruption, share: float, seed: int) -> list[Record]:
    """Returns the records with worse extended answers; questions and answers stay as they are.

    Args:
        records: Conversations of the demo, each with a turn on every topic.
        kind: "dropout" removes this share of the words, "swap" gives this share of the samples the extended answers
            of other ones, "hallucination" makes this share of the samples report lesions that their pictures lack.
        share: From 0 to 1.
        seed: Chooses the words or the samples.
    """
    return _KINDS[kind](records, share, np.random.default_rng([seed, get_args(Corruption).index(kind)]))


def drop_words(records: Sequence[Record], share: float, generator: np.random.Generator) -> list[Record]:
    """Removes every word with probability `share`; the full stop at the end stays, alone if need be."""
    return [
        replace(record, turns=tuple(_thinned(turn, share, generator) for turn in record.turns)) for record in records
    ]


def swap_samples(records: Sequence[Record], share: float, generator: np.random.Generator) -> list[Record]:
    """Gives chosen samples the extended answers of other chosen ones, topic by topic: nobody keeps the own.

    They are exchanged among samples that have the same topics: those with lesions, and those without.
    """
    result = list(records)
    kinds: dict[frozenset[Topic], list[int]] = {}
    for index in generator.permutation(len(records)):
        kinds.setdefault(frozenset(topics_of(records[index]).values()), []).append(int(index))
    for ranked in kinds.values():
        chosen = ranked[: round(share * len(ranked))]
        if len(chosen) < 2:
            continue  # alone there is nobody to exchange with
        for index, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
            given = {topic: turn.extended_answer for turn, topic in topics_of(records[other]).items()}
            own = topics_of(records[index])
            turns = tuple(replace(turn, extended_answer=given[own[turn]]) for turn in records[index].turns)
            result[index] = replace(records[index], turns=turns)
    return result


def hallucinate(records: Sequence[Record], share: float, generator: np.random.Generator) -> list[Record]:
    """Makes chosen samples report other lesions than the picture's; modality and organ stay true.

    Where there are lesions, number, side and size are all wrong; where there is none, some are reported.
    """
    result = list(records)
    order = generator.permutation(len(records))
    false_scenes = [_false_scene(scene_of(record), generator) for record in records]
    for index in order[: round(share * len(records))]:
        own, scene = topics_of(records[index]), false_scenes[index]
        turns = tuple(
            replace(turn, extended_answer=ask(scene, own[turn]).turn.extended_answer) for turn in records[index].turns
        )
        result[index] = replace(records[index], turns=turns)
    return result


def scene_of(record: Record) -> Scene:
    """Finds the scene that a conversation with a turn on every topic is about."""
    try:
        return _SCENES[frozenset(record.turns)]
    except KeyError:
        raise ValueError(
            f"scene_of: record must be one of the demo's conversations; got {record.id!r}, which fits no scene. "
            "Take conversations.json as the demo wrote it."
        ) from None


def topics_of(record: Record) -> dict[Turn, Topic]:
    """Returns the topic of every turn."""
    scene = scene_of(record)
    return {ask(scene, topic).turn: topic for topic in scene.topics()}


def _thinned(turn: Turn, share: float, generator: np.random.Generator) -> Turn:
    words = (turn.extended_answer or "").removesuffix(".").split()
    kept = [word for word, draw in zip(words, generator.random(len(words)), strict=True) if draw >= share]
    return replace(turn, extended_answer=" ".join(kept) + ".")


def _false_scene(scene: Scene, generator: np.random.Generator) -> Scene:
    count = int(generator.choice([number for number in range(1, MAX_LESIONS + 1) if number != scene.count]))
    sides: tuple[Side, ...] = get_args(Side)
    sizes: tuple[Size, ...] = get_args(Size)
    # Drawn either way, so that the numbers of later samples do not depend on this one.
    side, size = sides[generator.integers(2)], sizes[generator.integers(2)]
    if scene.count:
        side, size = next(each for each in sides if each != scene.side), next(e for e in sizes if e != scene.size)
    return Scene(scene.modality, scene.organ, count, side, size)


def _all_scenes() -> list[Scene]:
    findings: list[tuple[int, Side | None, Size | None]] = [(0, None, None)]
    findings += product(range(1, MAX_LESIONS + 1), get_args(Side), get_args(Size))
    return [Scene(modality, organ, *found) for modality, organ, found in product(MODALITIES, ORGANS, findings)]


_SCENES = {frozenset(ask(scene, topic).turn for topic in scene.topics()): scene for scene in _all_scenes()}
_KINDS: dict[Corruption, Callable[[Sequence[Record], float, np.random.Generator], list[Record]]] = {
    "dropout": drop_words,
    "swap": swap_samples,
    "hallucination": hallucinate,
}
