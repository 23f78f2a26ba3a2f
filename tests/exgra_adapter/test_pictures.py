"""Names and texts of users are shown in pictures as they are, also where matplotlib would read a formula and fail."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from exgra_adapter.data.check import DataReport
from exgra_adapter.data.plots import plot_report
from exgra_adapter.data.preparation.plots import plot_statistics
from exgra_adapter.evaluation.chat_files import ChatQuestion
from exgra_adapter.evaluation.choices import ChoiceItem
from exgra_adapter.evaluation.classification import ChoiceResult, score_choices
from exgra_adapter.evaluation.classification_report import plot_accuracy
from exgra_adapter.evaluation.compare import Difference
from exgra_adapter.evaluation.compare_plot import plot_differences
from exgra_adapter.evaluation.judge import Comparison, Verdict
from exgra_adapter.evaluation.judge_plots import plot_chat
from exgra_adapter.evaluation.judge_scores import score_chat
from exgra_adapter.evaluation.judge_table import tabulate
from exgra_adapter.evaluation.leaderboard import Measurement
from exgra_adapter.evaluation.metrics import Estimate
from exgra_adapter.evaluation.report_command import plot_leaderboard

NAME = r"$\no$ of 5"


def draw_chat(folder: Path) -> None:
    question = ChatQuestion("1", "a.png", "q", "ref", "caption", (), NAME, NAME)
    verdicts = {order: Verdict(8, 6, "a", "b") for order in ("reference_first", "candidate_first")}
    table = tabulate([Comparison(question, NAME, "said", verdicts, {})])
    plot_chat(score_chat(table), table, folder)


def draw_choices(folder: Path) -> None:
    item = ChoiceItem("1", NAME, "CT", "organ", "q", "a.png", ("a", "b"), 0)
    (folder / "a.png").write_bytes(plot_accuracy(score_choices([ChoiceResult(item, "A")], "generation"), "dataset"))


def draw_preparation(folder: Path) -> None:
    lengths = {"answer_lengths": {"1": 2}, "answer_words": {"percentile_95": 1}}
    groups = {key: {NAME: 2} for key in ("question_types", "modalities", "locations", "top_answers")}
    split = {"rows": 2, "turns": 2, "OPEN": 2, "CLOSED": 0, **lengths, **groups}
    plot_statistics({"data_set": NAME, "splits": {"train": split}}, folder / "a.png")


def draw_leaderboard(folder: Path) -> None:
    value = Estimate(0.5, 0.4, 0.6, 10)
    row = Measurement("vqa-rad", NAME, "strict", value, value, value, None, 0, "2026-01-01", NAME)
    plot_leaderboard([row], folder / "a.png")


def draw_differences(folder: Path) -> None:
    difference = Difference(0.5, 0.6, 0.1, 0.0, 0.2, 10)
    plot_differences({"strict exact_match": difference}, NAME, "long " * 20 + NAME, folder / "a.png")


def draw_data(folder: Path) -> None:
    sizes = [(32, 32), (2000, 1500)]  # far apart: on logarithmic axes
    plot_report(DataReport(f"{NAME}.json", "images", image_sizes=sizes), folder / "a.png", 100)


@pytest.mark.parametrize("style", [{}, {"axes.formatter.use_mathtext": True}], ids=["plain", "own style"])
@pytest.mark.parametrize(
    "draw", [draw_chat, draw_choices, draw_preparation, draw_leaderboard, draw_differences, draw_data]
)
def test_names_are_no_formulas(draw, style, tmp_path, monkeypatch):
    shown = []
    save = mpl.figure.Figure.savefig

    def watched(figure, *arguments, **options):
        save(figure, *arguments, **options)
        shown.extend(text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible())

    monkeypatch.setattr(mpl.figure.Figure, "savefig", watched)
    with mpl.rc_context(style):
        draw(tmp_path)
    assert any(NAME in text for text in shown)
    assert not any("mathdefault" in text for text in shown)
    for path in tmp_path.glob("*.png"):
        Image.open(path).verify()
