"""The studies of learning: captions get worse as they say, arms are shared, killed runs go on, pages are whole."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exgra_adapter.data.records import Record
from exgra_adapter.demo.results import DemoConfig
from exgra_adapter.demo.scenes import Scene, ask

ROOT = Path(__file__).resolve().parents[2]
TINY = DemoConfig(train_pictures=16, test_pictures=8, batch_size=8, caption_steps=1, instruct_steps=1, vqa_steps=1)
KINDS = ("dropout", "swap", "hallucination")
# Two seeds of an arm, as far as a page reads them.
MEASURED = {
    "arm": {},
    "sizes": {"batch_size": 16},
    "device": "cpu",
    "image_retrieval": 0.5,
    "retrieval": 0.5,
    "plain_matching": 0.5,
    "matching": None,
    "own_matching": None,
    "zero_gradient_share": None,
    "answers": 0.25,
    "cpu_seconds": 30.0,
    "wall_seconds": 60.0,
    "shared_cpu_seconds": 6.0,
    "guessing": 0.3,
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which lie beside the tests and are not installed."""
    monkeypatch.syspath_prepend(ROOT)
    pytest.importorskip("benchmarks")
    return lambda name: importlib.import_module(f"benchmarks.studies.{name}")


@pytest.fixture
def corruption(module: Any) -> ModuleType:
    return module("corruption")


@pytest.fixture
def records() -> list[Record]:
    found = []
    for number in range(60):
        scene = Scene.draw(np.random.default_rng(number))
        turns = tuple(ask(scene, topic).turn for topic in scene.topics())
        found.append(Record(str(number), f"{number}.png", turns))
    return found


def extended(record: Record) -> list[str]:
    return [turn.extended_answer or "" for turn in record.turns]


def changed(before: list[Record], after: list[Record]) -> list[int]:
    return [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_corruption_leaves_all_but_extended_answers(corruption, records: list[Record], kind: str, share: float):
    after = corruption.corrupt(records, kind, share, seed=3)
    assert [[replace(turn, extended_answer=None) for turn in record.turns] for record in after] == [
        [replace(turn, extended_answer=None) for turn in record.turns] for record in records
    ]
    assert [(record.id, record.image) for record in after] == [(record.id, record.image) for record in records]
    assert after == corruption.corrupt(records, kind, share, seed=3)
    assert all(text for record in after for text in extended(record))
    assert (after == records) == (share == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_larger_shares_contain_smaller_ones(corruption, records: list[Record], kind: str):
    half, all_of_them = (corruption.corrupt(records, kind, share, seed=1) for share in (0.5, 1.0))
    assert set(changed(records, half)) <= set(changed(records, all_of_them))


@pytest.mark.parametrize("share", [0.25, 0.75, 1.0])
def test_dropout_removes_its_share_of_the_words(corruption, records: list[Record], share: float):
    after = corruption.corrupt(records, "dropout", share, seed=0)
    before_words = [text.removesuffix(".").split() for record in records for text in extended(record)]
    after_words = [text.removesuffix(".").split() for record in after for text in extended(record)]
    kept = sum(map(len, after_words)) / sum(map(len, before_words))
    assert kept == pytest.approx(1 - share, abs=0.04)
    for old, new in zip(before_words, after_words, strict=True):
        remaining = iter(old)
        assert all(word in remaining for word in new)  # in their old order


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_swap_leaves_nobody_the_own_text(
    corruption, records: list[Record], share: float, monkeypatch: pytest.MonkeyPatch
):
    """Extended answers that name their sample tell who gave and who took."""
    topics = {
        record.id: {turn.question: topic for turn, topic in corruption.topics_of(record).items()} for record in records
    }
    marked = [
        replace(record, turns=tuple(replace(turn, extended_answer=record.id) for turn in record.turns))
        for record in records
    ]
    monkeypatch.setattr(
        corruption, "topics_of", lambda record: {turn: topics[record.id][turn.question] for turn in record.turns}
    )
    after = corruption.swap_samples(marked, share, np.random.default_rng(0))
    givers = [set(extended(record)) for record in after]
    assert all(len(each) == 1 for each in givers)
    moved = [(record.id, *each) for record, each in zip(after, givers, strict=True) if {record.id} != each]
    assert len(moved) == pytest.approx(share * len(records), abs=1)
    assert sorted(giver for _, giver in moved) == sorted(taker for taker, _ in moved)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_hallucination_changes_the_finding_and_nothing_else(corruption, records: list[Record], share: float):
    after = corruption.corrupt(records, "hallucination", share, seed=0)
    assert len(changed(records, after)) == round(share * len(records))
    for index in changed(records, after):
        scene = corruption.scene_of(records[index])
        topics = corruption.topics_of(records[index])
        for old, new in zip(records[index].turns, after[index].turns, strict=True):
            topic = topics[old]
            assert (old.extended_answer == new.extended_answer) == (topic in ("modality", "organ"))
            if topic == "presence":
                assert scene.findings() not in new.extended_answer
                assert "no lesion" not in new.extended_answer


def test_scenes_are_known_by_their_conversations(corruption, records: list[Record]):
    for number, record in enumerate(records):
        assert corruption.scene_of(record) == Scene.draw(np.random.default_rng(number))
    with pytest.raises(ValueError, match="scene_of: record must be one of the demo's conversations"):
        corruption.scene_of(replace(records[0], turns=records[0].turns[:1]))


def test_studies_share_arms(module):
    arms = module("arms")
    default = arms.ALIGNED.content()
    shared = [
        (study, label) for study, own in arms.STUDIES.items() for label, arm in own.items() if arm.content() == default
    ]
    assert {study for study, _ in shared} == set(arms.STUDIES)
    together = arms.distinct_arms(list(arms.STUDIES))
    contents = [json.dumps(arm.content(), sort_keys=True) for arm in together]
    assert len(set(contents)) == len(contents) < sum(map(len, arms.STUDIES.values()))


def test_an_address_is_that_of_the_content(module):
    arms = module("arms")
    size = arms.Size(TINY)
    address = arms.ALIGNED.address(size, 0, "cpu")
    same = [arms.aligned(neighbours=5), arms.aligned(data_fraction=1.0), arms.corrupted("swap", 0.0)]
    assert [arm.address(size, 0, "cpu") for arm in same] == [address] * len(same)
    others = [
        arms.aligned(neighbours=3).address(size, 0, "cpu"),
        arms.corrupted("swap", 0.5).address(size, 0, "cpu"),
        arms.corrupted("dropout", 0.5).address(size, 0, "cpu"),
        arms.ALIGNED.address(size, 1, "cpu"),
        arms.ALIGNED.address(size, 0, "cuda"),
        arms.ALIGNED.address(arms.Size(TINY, width=2), 0, "cpu"),
        arms.ALIGNED.address(arms.Size(TINY, module("learning").Pretraining(12, 1)), 0, "cpu"),
        arms.ALIGNED.address(arms.Size(replace(TINY, vqa_steps=2)), 0, "cpu"),
    ]
    assert len({address, *others}) == 1 + len(others)


def test_finished_arms_are_not_run_again(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runner, arms = module("runner"), module("arms")
    size, path = arms.Size(TINY), tmp_path / "learning.json"
    jobs = [runner.Job(arm, size, seed, "cpu") for seed in (0, 1) for arm in (arms.ALIGNED, arms.AR)]
    ran: list[str] = []

    def until(stop: int) -> Any:
        def finished(todo: list[Any], folder: Path, workers: int):
            for job in todo[:stop]:
                ran.append(job.address)
                yield job, {"seed": job.seed}
            if len(todo) > stop:
                raise KeyboardInterrupt

        return finished

    monkeypatch.setattr(runner, "_finished", until(3))
    with pytest.raises(KeyboardInterrupt):
        runner.run_jobs(jobs, runner.Store.read(path), workers=1)
    assert set(runner.Store.read(path).arms) == {job.address for job in jobs[:3]}
    for _ in range(2):
        runner.run_jobs(jobs, runner.Store.read(path), workers=1)
    assert ran == [job.address for job in jobs]
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert set(stored["arms"]) == set(ran)
    assert {"versions", "machine", "commit"} <= set(stored)
    assert [each.name for each in tmp_path.iterdir()] == ["learning.json"]


@pytest.mark.slow
def test_an_arm_is_trained_measured_and_written(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    arms, main = module("arms"), module("__main__").main
    pretraining = module("learning").Pretraining(pictures=12, steps=1)
    monkeypatch.setitem(arms.SIZES, "small", arms.Size(TINY, pretraining))
    few = {label: arms.STUDIES["caption_quality"][label] for label in ("as written", "dropout 50 %")}
    monkeypatch.setitem(arms.STUDIES, "caption_quality", few)
    main(["--studies", "caption_quality", "--seeds", "0", "--workers", "1", "--output", str(tmp_path)])
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "caption_quality.md",
        "caption_quality.png",
        "learning.json",
    ]
    results = json.loads((tmp_path / "learning.json").read_text(encoding="utf-8"))["arms"].values()
    assert [each["arm"].get("share", 0) for each in results] == [0, 0.5]
    for each in results:
        assert each["steps"] == 1
        assert each["cpu_seconds"] > 0
        assert all(0 <= each[name] <= 1 for name in ("retrieval", "image_retrieval", "plain_matching", "own_matching"))


@pytest.mark.parametrize("study", ["caption_quality", "neighbours", "barycenter", "data_efficiency"])
def test_pages_say_what_intervals_separate(module, study: str, tmp_path: Path):
    arms, report = module("arms"), module("learning_report")
    labels = list(arms.STUDIES[study])
    results = {
        label: {
            seed: {**MEASURED, "seed": seed, "answers": 0.2 + 0.1 * (label == labels[-1]) + 0.001 * seed}
            for seed in (0, 1, 2)
        }
        for label in labels
    }
    report.write_study(study, results, tmp_path)
    text = (tmp_path / f"{study}.md").read_text(encoding="utf-8")
    assert (tmp_path / f"{study}.png").read_bytes().startswith(b"\x89PNG")
    assert f"]({study}.png)" in text
    assert all(f"| {label} | 50.0 ± 0.0 % |" in text for label in labels)
    assert "30.0 CPU seconds" in text
    compared = [pair for pair in report._TEXTS[study].pairs if labels[-1] in pair]
    assert compared
    for first, second in compared:
        sign = "+" if first == labels[-1] else "-"
        assert f"| {first} − {second} |" in text
        assert f"**{sign}10.0 ({sign}10.0 to {sign}10.0)**" in text
    known = [(first, second) for first, second, measure in report._TEXTS[study].keys if measure == "answers"]
    for first, second in known:
        verdict = {first: "higher", second: "lower"}.get(labels[-1], "**not separated**")
        means = [30.1 if label == labels[-1] else 20.1 for label in (first, second)]
        assert f"- Answers: *{first}* {means[0]} %, *{second}* {means[1]} %; {verdict}, " in text


@pytest.mark.parametrize("study", ["caption_quality", "neighbours", "barycenter", "data_efficiency"])
def test_differences_name_arms_of_their_study(module, study: str):
    arms, report = module("arms"), module("learning_report")
    text = report._TEXTS[study]
    assert {label for pair in text.pairs for label in pair} <= set(arms.STUDIES[study])
    assert {(first, second) for first, second, _ in text.keys} <= set(text.pairs)
    assert {measure for *_, measure in text.keys} <= set(text.measures)


def test_intervals_are_those_of_students_t(module):
    statistics = module("statistics")
    found = statistics.interval([1.0, 2.0, 3.0])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(4.302652729911275 / np.sqrt(3))
    first = {seed: {"answers": value} for seed, value in enumerate((0.5, 0.7, 0.9))}
    second = {seed: {"answers": value} for seed, value in enumerate((0.4, 0.6, 0.8, 0.1))}
    paired = statistics.difference(first, second, "answers")
    assert (paired.mean, paired.count, paired.excludes_zero) == (pytest.approx(0.1), 3, True)
    assert statistics.estimate({0: {"answers": None}}, "answers") is None
