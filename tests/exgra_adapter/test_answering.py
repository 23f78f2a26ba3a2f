"""Answers from a model folder: batches, journals, interruptions, several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from exgra_adapter.data.images import ImageError
from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.evaluation.answering import answer_questions, trained_prompt
from exgra_adapter.evaluation.files import read_answers
from exgra_adapter.evaluation.journal import Journal, journal_files, read_journals
from exgra_adapter.models import build_tiny_model

SCRIPT = Path(__file__).parent / "distributed" / "answers.py"
QUESTIONS = [
    "Which organ is shown?",
    "Is a lesion visible?",
    "What?",
    "On which side of the picture are the lesions?",
    "Où est le foie?",
]
SHORT = {"max_new_tokens": 5, "console_progress": False}


class Setting:
    """A tiny model with random weights and sixteen questions, one of them about an image that is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.model, self.data = folder / "model", folder / "test.json"
        self.images.mkdir()
        rng = np.random.default_rng(0)
        self.records = []
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(self.images / f"{number}.png")
            turns = tuple(Turn(QUESTIONS[(number + 2 * turn) % 5], "liver") for turn in range(2))
            self.records.append(Record(f"é{number}", f"{number}.png", turns, "OPEN"))
        (self.images / "5.png").unlink()
        write_records(self.data, self.records)
        model, processor = build_tiny_model([*QUESTIONS, "yes", "liver"], seed=0)
        with torch.no_grad():  # Random weights repeat one token; larger ones make the answers depend on the prompt.
            for parameter in model.model.language_model.parameters():
                parameter.mul_(3)
        model.save_pretrained(self.model)
        processor.save_pretrained(self.model)

    def answer(self, output: Path, **changes: Any) -> list[Any]:
        values = {"model_folder": self.model, "records": self.records, "images": self.images, **SHORT, **changes}
        return answer_questions(answers_file=output, **values)

    def job(self, output: Path, **changes: Any) -> dict[str, Any]:
        paths = {"model": self.model, "data": self.data, "images": self.images, "output": output}
        return {**{name: str(path) for name, path in paths.items()}, **SHORT, **changes}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="module")
def whole(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], bytes]:
    """The answers of one uninterrupted process in batches of three, and the file."""
    output = tmp_path_factory.mktemp("whole") / "answers.jsonl"
    return setting.answer(output, batch_size=3), output.read_bytes()


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the process fail when it has written down some batches."""

    def stop_after(batches: int) -> None:
        append, calls = Journal.append, [0]

        def counted(self: Journal, entries: Any) -> None:
            append(self, entries)
            calls[0] += 1
            if calls[0] == batches:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "append", counted)

    return stop_after


def run(jobs: list[dict[str, Any]], folder: Path, killed_at: int = 0, processes: int = 0) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    command = [sys.executable]
    if processes:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder / "jobs.json"), str(killed_at)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if killed_at else 0), done.stdout + done.stderr


def returned(output: Path, process: int) -> list[dict[str, Any]]:
    return json.loads(output.with_name(f"{output.name}.returned.{process}.json").read_text(encoding="utf-8"))


def texts(predictions: list[Any]) -> list[str | None]:
    return [prediction.prediction for prediction in predictions]


def test_answers_do_not_depend_on_the_batch(setting, whole, tmp_path):
    expected, _ = whole
    for size in (1, 7, 100):
        assert setting.answer(tmp_path / f"{size}.jsonl", batch_size=size) == expected
    assert len({text for text in texts(expected) if text}) > 3


def test_every_question_has_one_line_in_the_order_of_the_data(setting, whole, tmp_path):
    expected, content = whole
    (tmp_path / "answers.jsonl").write_bytes(content)
    assert read_answers(tmp_path / "answers.jsonl") == expected
    assert [(p.id, p.turn) for p in expected] == [(r.id, turn) for r in setting.records for turn in range(2)]


def test_a_question_without_image_counts_as_failed_and_says_why(setting, whole, tmp_path):
    failed = [p for p in whole[0] if p.prediction is None]
    assert [(p.id, p.turn) for p in failed] == [("é5", 0), ("é5", 1)]
    assert all("5.png must be an existing image file" in p.error for p in failed)
    with pytest.raises(ImageError, match=r"5\.png"):
        setting.answer(tmp_path / "answers.jsonl", on_error="raise", batch_size=3)
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_question_that_spells_a_special_token_fails_alone(setting, tmp_path):
    records = [Record("a", "0.png", (Turn(text, "liver"),)) for text in ("What?", "Is </s> it?", "a <image> b", "Why?")]
    found = setting.answer(tmp_path / "a.jsonl", records=records)
    assert [p.prediction is None for p in found] == [False, True, True, False]
    assert "special token" in found[1].error
    assert "'<image>'" in found[2].error
    assert found[::3] == setting.answer(tmp_path / "b.jsonl", records=records[::3])


@pytest.mark.parametrize(("batches", "left"), [(1, 11), (4, 4)])  # two of the sixteen have no image
def test_interrupted_work_is_continued_not_repeated(setting, whole, tmp_path, monkeypatch, stopping, batches, left):
    output = tmp_path / "answers.jsonl"
    stopping(batches)
    with pytest.raises(KeyboardInterrupt):
        setting.answer(output, batch_size=3)
    monkeypatch.undo()
    assert not output.exists()
    asked = []
    generate = LlavaForConditionalGeneration.generate

    def noted(self: Any, **inputs: Any) -> Any:
        asked.append(len(inputs["input_ids"]))
        return generate(self, **inputs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", noted)
    assert setting.answer(output, batch_size=3) == whole[0]
    assert output.read_bytes() == whole[1]
    assert sum(asked) == left
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_without_resuming_earlier_work_is_thrown_away(setting, whole, tmp_path, monkeypatch, stopping):
    output = tmp_path / "answers.jsonl"
    stopping(1)
    with pytest.raises(KeyboardInterrupt):
        setting.answer(output, batch_size=4)
    monkeypatch.undo()
    assert setting.answer(output, batch_size=3, resume=False) == whole[0]
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_other_work_is_not_continued(setting, tmp_path, monkeypatch, stopping):
    output = tmp_path / "answers.jsonl"
    stopping(1)
    with pytest.raises(KeyboardInterrupt):
        setting.answer(output, batch_size=3)
    monkeypatch.undo()
    other = tmp_path / "model"
    other.mkdir()
    for path in setting.model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    (tmp_path / "images").mkdir()
    before = journal_files(output)[0].read_bytes()
    for name, changes in {
        "batch_size": {"batch_size": 4},
        "max_new_tokens": {"max_new_tokens": 6},
        "prompt": {"prompt": "released"},
        "data": {"records": setting.records[::-1]},
        "images": {"images": tmp_path / "images"},
        "model": {"model_folder": other},
    }.items():
        with pytest.raises(ValueError, match=rf"^answer_questions: {name} must be the same.*Give the old settings"):
            setting.answer(output, **{"batch_size": 3, **changes})
    assert journal_files(output)[0].read_bytes() == before


def test_kill_loses_the_batch_in_flight_at_most(setting, whole, tmp_path):
    output = tmp_path / "answers.jsonl"
    run([setting.job(output, batch_size=3)], tmp_path, killed_at=3)
    [path] = journal_files(output)
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 1 + 9
    assert lines[-1]  # torn
    assert setting.answer(output, batch_size=3) == whole[0]
    assert output.read_bytes() == whole[1]


def test_two_processes_give_the_answers_of_one(setting, whole, tmp_path, monkeypatch, stopping):
    fresh, continued = tmp_path / "fresh.jsonl", tmp_path / "continued.jsonl"
    stopping(2)
    with pytest.raises(KeyboardInterrupt):
        setting.answer(continued, batch_size=3)
    monkeypatch.undo()
    run([setting.job(output, batch_size=3) for output in (fresh, continued)], tmp_path, processes=2)
    for output in (fresh, continued):
        assert output.read_bytes() == whole[1]
        assert not journal_files(output)
        for process in range(2):
            assert returned(output, process) == [asdict(prediction) for prediction in whole[0]]


def test_images_may_lie_in_an_archive(setting, whole, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for path in setting.images.iterdir():
            archive.add(path, path.name)
    found = setting.answer(tmp_path / "answers.jsonl", images=tmp_path / "images.tar", batch_size=3)
    assert texts(found) == texts(whole[0])


def test_drawn_answers_follow_from_seed_and_question(setting, whole, tmp_path):
    def drawn(name: str, **changes: Any) -> list[str | None]:
        return texts(setting.answer(tmp_path / f"{name}.jsonl", **changes))

    first = drawn("first", temperature=2.0, batch_size=2)
    assert first == drawn("again", temperature=2.0, batch_size=5)
    assert first != drawn("other", temperature=2.0, seed=1)
    assert first != texts(whole[0])
    assert drawn("cold", temperature=1e-6) == texts(whole[0])


def test_no_question_gives_an_empty_file(setting, tmp_path):
    assert setting.answer(tmp_path / "answers.jsonl", records=[]) == []
    assert (tmp_path / "answers.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"max_new_tokens": 0}, {"on_error": "skip"}, {"precision": "8"}, {"temperature": -1}]
)
def test_arguments_out_of_range_are_refused(setting, tmp_path, wrong):
    with pytest.raises(ValueError, match=rf"^answer_questions: {next(iter(wrong))}|batch_size and max"):
        setting.answer(tmp_path / "answers.jsonl", **wrong)


def test_folders_without_a_model_are_refused(setting, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        setting.answer(tmp_path / "answers.jsonl", model_folder=tmp_path)


def test_the_prompt_is_that_of_training(tmp_path):
    assert trained_prompt(tmp_path) == "llava"
    (tmp_path / "settings.json").write_text('{"prompt": "released"}')
    assert trained_prompt(tmp_path) == "released"
    (tmp_path / "settings.json").write_text("[]")
    assert trained_prompt(tmp_path) == "llava"


def journal(folder: Path, content: bytes) -> Path:
    (folder / "a.journal-0").write_bytes(content)
    return folder / "a"


def test_a_journal_ends_where_it_was_torn(tmp_path):
    with Journal(tmp_path / "a", 0, {"model": "m"}) as mine:
        mine.append([{"index": 0, "text": "Où\u2028?"}, {"index": 1, "text": None}])
    complete = mine.path.read_bytes()
    starts = [at + 1 for at, byte in enumerate(complete) if byte == ord("\n")]
    for size in range(len(complete) + 1):
        target = journal(tmp_path, complete[:size])
        found = read_journals(target, {"model": "m"}, "test")
        assert list(found) == list(range(max(0, sum(start <= size for start in starts) - 1)))
        with Journal(target, 0, {"model": "m"}) as mine:
            mine.append([{"index": 7}])
        assert list(read_journals(target, {"model": "m"}, "test")) == [*found, 7]


@pytest.mark.parametrize(
    ("content", "number"),
    [(b"{}\n", 1), (b'{"settings": {}}\n{broken\n{"index": 1}\n', 2), (b'{"settings": {}}\n{"index": "1"}\n', 2)],
)
def test_damaged_journals_are_refused_with_the_line(tmp_path, content, number):
    with pytest.raises(ValueError, match=rf"line {number} must be what this package wrote"):
        read_journals(journal(tmp_path, content), {}, "test")
