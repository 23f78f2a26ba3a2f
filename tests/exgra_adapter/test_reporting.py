"""The training report: what it measures, what it warns of, and that it is written whatever was logged."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exgra_adapter.config import TrainingConfig
from exgra_adapter.reporting.facts import Facts
from exgra_adapter.reporting.findings import find_warnings
from exgra_adapter.reporting.measures import format_overhead, late_mean, measure_overhead, smooth, time_split
from exgra_adapter.reporting.plots import plot_history
from exgra_adapter.reporting.report import write_training_report
from exgra_adapter.reporting.settings import split_settings

SETTINGS = {
    **TrainingConfig("vqa", data="train.json", images="images", output="run", model="tiny").resolved().to_json(),
    "alignment_weight": 1.0,
    "objective": "barycenter",
    "graph_scope": "local",
    "barycenter": "leave_one_out",
    "neighbours": 5,
    "batch_size": 16,
}
FACTS: Facts = {
    "samples": 90,
    "skipped": 0,
    "steps": 40,
    "seconds": 80.0,
    "parameters": 1000,
    "trainable": 900,
    "world_size": 2,
    "device": "CPU",
    "versions": {"torch": "2", "graphmatch": "0.1.0"},
    "data_file": "train.json",
    "data_sha256": "ab" * 32,
    "data_count": 90,
    "base_model": "tiny",
    "peak_memory_bytes": 2**31,
}
KEYS = (
    "epoch", "loss", "ar_loss", "learning_rate", "gradient_norm", "gradient_norm_projector", "gradient_norm_alignment",
    "alignment_loss", "extended_text_loss", "matching_accuracy", "retrieval", "zero_gradient_share", "gap",
    "seconds_forward", "seconds_text", "seconds_backward", "seconds_unheard_of", "tokens_main", "tokens_text",
)  # fmt: skip


def history(count: int = 40, **values: float) -> list[dict[str, float]]:
    """A run that learns: the loss falls, matching and retrieval rise."""
    entries = []
    for step in range(1, count + 1):
        share = step / count
        entry = {
            "step": step, "epoch": share, "loss": 3 - 2 * share, "ar_loss": 2 - share, "alignment_loss": 1.5 - share,
            "learning_rate": 1e-3 * (1 - share), "gradient_norm": 1.0, "gradient_norm_projector": 0.5,
            "matching_accuracy": share, "retrieval": 0.9 * share, "zero_gradient_share": 0.2,
            "seconds_data": 0.1, "seconds_forward": 1.0, "seconds_text": 0.3, "seconds_graph": 0.1,
            "seconds_solve": 0.1, "seconds_backward": 1.4, "seconds_optimizer": 0.5,
            "tokens_main": 1000.0, "tokens_text": 400.0,
        }  # fmt: skip
        entries.append({**entry, **values})
    return entries


def warnings(changed: dict[str, object] | None = None, entries: list[dict[str, float]] | None = None, **facts) -> str:
    found = find_warnings(
        {**SETTINGS, **(changed or {})}, history() if entries is None else entries, {**FACTS, **facts}
    )
    return "\n".join(found)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_training_report(tmp_path_factory.mktemp("run") / "new", SETTINGS, history(), FACTS)


def test_overhead_is_what_a_step_without_alignment_would_save():
    overhead = measure_overhead(history())
    # Of 3.5 s, the alignment's are 0.3 + 0.1 + 0.1 and, of the backward pass, 1.4 * 0.4 / 1.4.
    assert overhead is not None
    assert overhead.together == pytest.approx(0.9 / 3.5)
    assert overhead.relative == pytest.approx(0.9 / 2.6)
    assert overhead.extra_tokens == pytest.approx(0.4)
    assert overhead.bar == pytest.approx(0.45)
    assert overhead.within_bar
    assert "34.6 % on top of a step without it" in format_overhead(overhead)
    assert "within the bar" in format_overhead(overhead)


def test_overhead_needs_a_timed_alignment():
    assert measure_overhead([]) is None
    assert measure_overhead([{"step": 1, "seconds_forward": 1.0, "tokens_main": 5.0}]) is None
    uncounted = measure_overhead([{"step": 1, "seconds_forward": 1.0, "seconds_solve": 0.5}])
    assert uncounted is not None
    assert (uncounted.relative, uncounted.backward, uncounted.within_bar) == (0.5, 0.0, None)
    assert "no bar" in format_overhead(uncounted)


def test_an_entry_counts_for_the_steps_that_it_stands_for():
    entries = [{"step": 1, "seconds_forward": 10.0}, {"step": 10, "seconds_forward": 1.0}, {"step": 10, "loss": 1.0}]
    assert time_split(entries) == {"forward": pytest.approx((10 + 9 * 1.0) / 10)}


@given(st.lists(st.floats(-100, 100) | st.just(math.nan), min_size=1, max_size=300))
def test_smoothing_stays_between_the_extremes_and_keeps_the_length(values):
    smoothed = smooth(np.array(values))
    assert len(smoothed) == len(values)
    finite = [value for value in values if math.isfinite(value)]
    shown = smoothed[np.isfinite(smoothed)]
    assert not len(shown) or (min(finite) - 1e-9 <= shown.min() and shown.max() <= max(finite) + 1e-9)


def test_late_mean_leaves_out_what_is_not_finite():
    assert late_mean([{"loss": 8.0}, {"loss": 2.0}, {"loss": math.nan}, {}, {"loss": 4.0}], "loss") == 4.0
    assert late_mean([{"loss": math.inf}], "loss") is None


def test_a_sound_run_gives_no_warning():
    assert warnings() == ""


def test_high_matching_with_low_retrieval_names_the_barycenter():
    """Trap 2.13: the barycenter holds the view that is matched with it, so matching is right almost for free."""
    entries = history(retrieval=0.2)
    assert "`barycenter: leave_one_out`" in warnings({"barycenter": "mean"}, entries)
    other = warnings(entries=entries)
    assert "retrieval is at 20.0 %" in other
    assert "leave_one_out" not in other


def test_a_silent_alignment_is_reported():
    """Trap 2.14: the discrete loss sends no gradient however small the margin is."""
    assert "silent: 97.0 %" in warnings(entries=history(zero_gradient_share=0.97, retrieval=0.3, matching_accuracy=0.4))
    assert "silent" not in warnings(entries=history(zero_gradient_share=0.97, retrieval=0.9))


def test_graphs_too_small_for_their_neighbours_are_reported():
    """Trap 2.5: fewer than k + 1 nodes silently give fewer neighbours, and one node gives no problem at all."""
    local, spread = {"graph_scope": "local", "batch_size": 6}, {"graph_scope": "global", "batch_size": 6}
    assert "every node has all others" in warnings(local)
    assert "every node has all others" not in warnings({**local, "batch_size": 7})
    assert warnings(spread) == ""  # two ranks: twelve nodes
    assert "single node" in warnings({"graph_scope": "local", "batch_size": 1})
    assert warnings({"batch_size": 1, "alignment_weight": 0.0}) == ""
    assert warnings({"batch_size": 1, "objective": "extended_text"}) == ""


@pytest.mark.parametrize(
    ("changed", "entries", "facts", "expected"),
    [
        ({}, [*history(3), {"step": 4, "ar_loss": math.nan}], {}, "`ar_loss` is not finite in 1 of 4"),
        ({}, [{**entry, "ar_loss": entry["step"]} for entry in history()], {}, "loss rose, from 5.5 in the first"),
        ({}, history(), {"skipped": 10}, "10 samples (10.0 %) were left out"),
        ({}, history(seconds_solve=5.0), {}, "more than its tokens explain (45.0 % with the allowance)"),
        ({"reuse_answer_states": True}, history(), {}, "has seen the image"),
        ({}, [{"step": 1, "ar_loss": 1.0}], {}, "no alignment loss was logged"),
    ],
)
def test_each_sign_of_trouble_is_reported(changed, entries, facts, expected):
    """Trap 2.10 among them: samples that were left out are counted."""
    assert expected in warnings(changed, entries, **facts)


def test_settings_that_differ_from_the_defaults_of_the_stage_come_first():
    given = {**TrainingConfig("vqa", data="d.json", images="i", output="o").resolved().to_json(), "neighbours": 9}
    changed, others = split_settings(given)
    assert ["`neighbours`", "9", "5"] in changed
    assert ["`stage`", "vqa", "-"] in changed
    # The stage's own default is no change, though the field's default is None.
    assert ["`epochs`", "15.0"] in others
    assert len(changed) + len(others) == len(given)
    assert split_settings({"stage": "of another version", "epochs": 2})[0][0] == ["`stage`", "of another version", "-"]


def test_a_report_shows_every_subject_with_its_picture(report):
    path, text = report, report.read_text(encoding="utf-8")
    assert path.parts[-3:] == ("new", "report", "report.md")
    shown = re.findall(r"!\[[^]]+\]\((.+?)\)", text)
    assert sorted(shown) == sorted(file.name for file in path.parent.iterdir() if file.suffix == ".png")
    assert len(shown) == 6
    for name in shown:
        with Image.open(path.parent / name) as picture:
            assert picture.size == (800, 500)
            assert len(set(picture.convert("L").resize((80, 50)).tobytes())) > 5, f"{name} is blank"
    parts = (
        "ab" * 32, "2 x CPU", "2.0 GiB", "| autoregressive loss (nats per token) | 1.975 | 1 | 1 | 40 |",
        "chance is 6.2 %", "| solving | 0.1 | 2.9 % | yes |", "within the bar", "not for clinical use",
    )  # fmt: skip
    assert [part for part in parts if part not in text] == []


def test_the_markdown_and_the_pictures_depend_on_the_arguments_alone(report, tmp_path):
    folders = [report.parent, write_training_report(tmp_path, SETTINGS, history(), FACTS).parent]
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert first == second


def test_a_new_report_removes_the_pictures_of_the_old_one(tmp_path):
    folder = write_training_report(tmp_path, {}, [{"step": 1, "learning_rate": 0.1}], {}).parent
    (folder / "notes.txt").write_text("mine")
    assert (folder / "learning_rate.png").is_file()
    write_training_report(tmp_path, {"stage": "vqa"}, [], {})
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", "report.md"]
    assert "No step was logged." in (folder / "report.md").read_text(encoding="utf-8")


def test_one_entry_is_enough_for_every_picture(tmp_path):
    assert len(plot_history(history(1), tmp_path)) == 6


@settings(max_examples=8)  # every example draws up to six pictures
@given(st.data())
def test_a_report_is_written_whatever_was_logged(tmp_path_factory, data):
    numbers = st.floats(width=32) | st.integers(-3, 10**9)
    entries = data.draw(st.lists(st.dictionaries(st.sampled_from(("step", *KEYS)), numbers), max_size=4))
    # Steps count upwards in a log; other quantities may be anything.
    entries = [{**entry, **({"step": place} if "step" in entry else {})} for place, entry in enumerate(entries, 1)]
    facts = {key: FACTS[key] for key in data.draw(st.sets(st.sampled_from(sorted(FACTS))))}  # type: ignore[literal-required]
    chosen = {key: SETTINGS[key] for key in data.draw(st.sets(st.sampled_from(sorted(SETTINGS))))}
    path = write_training_report(Path(tmp_path_factory.mktemp("any")), chosen, entries, facts)
    assert path.read_text(encoding="utf-8").startswith("# Training report")
