"""The demo in miniature: everything it writes, what it may replace, and what an interruption leaves behind."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from exgra_adapter.data.records import Record, Turn, read_records
from exgra_adapter.demo import run
from exgra_adapter.demo.measure import majority_answers, measure_alignment, paired_difference, score_topics
from exgra_adapter.demo.report import format_report, is_demo_folder
from exgra_adapter.demo.results import ARMS, ArmResult, DemoConfig, DemoResult, HeldOutAlignment
from exgra_adapter.demo.run import run_demo
from exgra_adapter.evaluation.files import Prediction, read_answers
from exgra_adapter.evaluation.metrics import score

TINY = DemoConfig(
    train_pictures=12,
    test_pictures=12,
    batch_size=4,
    caption_steps=1,
    instruct_steps=2,
    vqa_steps=1,
    logging_steps=1,
    bootstrap_resamples=20,
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "demo"
    report = run_demo(output, seed=1, threads=1, config=TINY, console_progress=False)
    assert report == output / "report.md"
    return output


def test_demo_writes_report_plots_data_models_and_answers(demo):
    assert sorted(path.name for path in demo.iterdir()) == [
        "alignment.png", "answers", "data", "examples.png", "losses.png", "models", "report.md", "results.json",
        "scores.png",
    ]  # fmt: skip
    for name in ("alignment", "examples", "losses", "scores"):
        picture = np.asarray(Image.open(demo / f"{name}.png").convert("L"))
        assert picture.std() > 5
        assert f"]({name}.png)" in (demo / "report.md").read_text()
    for arm in ("with_alignment", "without_alignment"):
        assert len(read_answers(demo / "answers" / f"{arm}.jsonl")) == 24
        assert (demo / "models" / arm / "vqa" / "model.safetensors").is_file()
    assert (demo / "models" / "with_alignment" / "stage2" / "alignment.safetensors").is_file()
    assert not (demo / "models" / "without_alignment" / "stage2" / "alignment.safetensors").exists()
    assert [path.name for path in demo.parent.iterdir()] == ["demo"]
    settings = json.loads((demo / "models" / "with_alignment" / "vqa" / "settings.json").read_text())
    assert all((demo / settings[name]).exists() for name in ("data", "images", "model", "output"))


def test_both_arms_start_from_the_same_point(demo):
    results = json.loads((demo / "results.json").read_text())
    first = [results["arms"][arm]["instruct_history"][0] for arm in ARMS]
    assert first[0]["ar_loss"] == pytest.approx(first[1]["ar_loss"], rel=1e-5)
    assert "alignment_loss" in first[0]
    assert "alignment_loss" not in first[1]


def test_results_say_what_was_measured(demo):
    results = json.loads((demo / "results.json").read_text())
    assert results["seed"] == 1
    assert results["threads"] == 1
    assert len(results["caption_history"]) == TINY.caption_steps
    assert results["config"] == dataclasses.asdict(TINY)
    assert results["before"]["batches"] == 3
    assert set(results["seconds"]) > {"drawing pictures", "stage 1", "stage 2 with alignment"}
    assert results["majority"]["exact_match"]["count"] == 24


@pytest.mark.slow
def test_same_seed_gives_the_same_results(demo, tmp_path):
    run_demo(tmp_path / "demo", seed=1, threads=1, config=TINY, console_progress=False)
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (demo, tmp_path / "demo"))
    for results in (first, second):
        del results["seconds"]
    assert first == second
    for name in ("answers/with_alignment.jsonl", "data/vqa_test.json"):
        assert (demo / name).read_bytes() == (tmp_path / "demo" / name).read_bytes()


def test_held_out_graphs_are_measured_alike_each_time_and_need_a_whole_batch(demo):
    records = read_records(demo / "data" / "conversations_test.json")
    arguments = (demo / "data" / "images", 4, 0, False)
    first = measure_alignment(demo / "models" / "stage1", records[:10], *arguments)
    assert first == measure_alignment(demo / "models" / "stage1", records[:8], *arguments)
    assert first.batches == 2
    assert 0 <= first.retrieval <= 1
    with pytest.raises(ValueError, match="at least one batch of 4; got 3"):
        measure_alignment(demo / "models" / "stage1", records[:3], *arguments)


class _QuickDemo:
    """Stands for a demo that finishes at once."""

    def __init__(self, config, seed, folder, console_progress):
        self.folder = folder

    def run(self):
        (self.folder / "report.md").write_text("new")
        (self.folder / "results.json").write_text('{"kind": "exgra-med demo"}')


def test_an_earlier_demo_is_replaced_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_Demo", _QuickDemo)
    output = tmp_path / "runs" / "demo"
    run_demo(output)
    (output / "leftover").write_text("old")
    run_demo(output)
    assert sorted(path.name for path in output.iterdir()) == ["report.md", "results.json"]
    assert [path.name for path in output.parent.iterdir()] == ["demo"]
    assert is_demo_folder(output)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interrupted_demo_leaves_the_earlier_one_and_nothing_else(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(run, "_Demo", _QuickDemo)
    run_demo(tmp_path / "demo")

    def interrupt(self):
        (self.folder / "report.md").write_text("half")
        raise stop

    monkeypatch.setattr(_QuickDemo, "run", interrupt)
    threads = torch.get_num_threads()
    with pytest.raises(stop):
        run_demo(tmp_path / "demo", threads=threads + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert (tmp_path / "demo" / "report.md").read_text() == "new"
    assert torch.get_num_threads() == threads


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(ValueError, match="must be empty or hold an earlier demo"):
        run_demo(tmp_path)
    assert (tmp_path / "report.md").read_text() == "mine"
    with pytest.raises(ValueError, match="must be a folder"):
        run_demo(tmp_path / "report.md")


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"threads": 0}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"^run_demo: "):
        run_demo(tmp_path / "demo", **wrong)
    assert list(tmp_path.iterdir()) == []


def _records(*answers):
    kinds = {"yes": "CLOSED", "no": "CLOSED"}
    return [
        Record(f"{number}", "image.png", (Turn("Question?", answer),), kinds.get(answer, "OPEN"))
        for number, answer in enumerate(answers)
    ]


def test_majority_answer_is_the_commonest_of_topic_and_type_and_ties_go_by_alphabet():
    train = _records("liver", "brain", "liver", "yes", "no", "ct", "mri")
    topics = dict(zip("0123456", ["organ", "organ", "organ", "organ", "organ", "modality", "modality"], strict=True))
    predictions = majority_answers(train, train, topics)
    assert [p.prediction for p in predictions] == ["liver", "liver", "liver", "no", "no", "ct", "ct"]


def test_majority_answer_of_an_unseen_kind_of_question_is_none():
    test = _records("left")
    assert majority_answers([], test, {"0": "side"})[0].prediction is None


def test_paired_difference_of_equal_scores_is_exactly_0():
    records = _records("liver", "yes", "brain", "no")
    scores = score(records, [Prediction("0", 0, "", "", "liver"), Prediction("1", 0, "", "", "yes")])
    difference = paired_difference(scores, scores, seed=0, resamples=50)
    assert (difference.value, difference.low, difference.high, difference.count) == (0, 0, 0, 4)
    with pytest.raises(ValueError, match="same questions"):
        paired_difference(scores, score(records[:2], []), 0, 10)


def _result(with_alignment, without):
    """A result made of two lists of answers to the same questions."""
    records = _records(*["liver"] * 20, *["yes"] * 20)
    topics = {record.id: "organ" for record in records}

    def arm(answers):
        predictions = tuple(
            Prediction(record.id, 0, "Question?", "liver", answer)
            for record, answer in zip(records, answers, strict=True)
        )
        scores = score(records, predictions, resamples=200)
        after = HeldOutAlignment(0.5, 0.5, 2)
        return ArmResult([], [], after, scores, score_topics(scores.items, topics, 0, 10), predictions)

    arms = dict(zip(ARMS, (arm(with_alignment), arm(without)), strict=True))
    majority = arms[ARMS[0]].scores
    difference = paired_difference(*(arms[name].scores for name in ARMS), 0, 200)
    return DemoResult(
        DemoConfig(), 0, 2, 10**6, [], HeldOutAlignment(0.1, 0.1, 2), arms, majority,
        score_topics(majority.items, topics, 0, 10), difference, topics, tuple(records), {"stage 1": 1.0},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("with_alignment", "without", "verdict"),
    [
        (["liver"] * 20 + ["yes"] * 20, ["x"] * 40, "helped here"),
        (["x"] * 40, ["liver"] * 20 + ["yes"] * 20, "did harm here"),
        (["liver"] * 40, ["liver"] * 40, "does not show which one is better"),
    ],
)
def test_report_says_whichever_side_wins(with_alignment, without, verdict):
    report = format_report(_result(with_alignment, without))
    assert verdict in report
    assert "For research only" in report
    assert "2 CPU threads" in report


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="run_demo: output must be in a folder that can be written to"):
        run_demo(tmp_path / "file" / "demo", config=TINY, console_progress=False)
