"""`exgra-med data check`: every kind of finding, token lengths, files, exit codes, Ctrl-C."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from exgra_adapter.data import check as module
from exgra_adapter.data import command
from exgra_adapter.data.check import KINDS, DataReport, check_images, check_records
from exgra_adapter.data.images import ImageError
from exgra_adapter.data.lengths import LengthStatistics, TokenCounter
from exgra_adapter.data.plots import plot_report
from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.data.stores import open_image_store
from exgra_adapter.prompts import conversation_text

IMAGE_TOKENS = 10


def picture(path: Path, seed: int, side: int = 40) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def sample(
    identifier: Any, image: str, *texts: str, long: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    def messages(answers: tuple[str, ...]) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(answers)]

    content = {"id": identifier, "image": image, "conversations": messages(texts), "answer_type": kind}
    if long is not None:
        content["conversations_long"] = messages(tuple(long if i % 2 else text for i, text in enumerate(texts)))
    return {key: value for key, value in content.items() if value is not None}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a tokenizer of one token per word or sign, and the size of an image."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<image>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", additional_special_tokens=["<image>"]
    )
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"image_seq_length": IMAGE_TOKENS}))
    return folder


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    """One of everything that can be wrong."""
    folder = tmp_path_factory.mktemp("faulty")
    images = folder / "images"
    images.mkdir()
    picture(images / "a.png", 0)
    picture(images / "b.png", 1)
    picture(images / "tiny.png", 2, side=8)
    shutil.copy(images / "a.png", images / "copy.png")
    Image.new("RGB", (40, 40), "red").save(images / "blank.png")
    (images / "cut.png").write_bytes((images / "b.png").read_bytes()[:-90])
    lines: list[Any] = [
        sample(1, "a.png", "What is it?", "a liver", long="It is a liver.", kind="OPEN"),
        sample(2, "a.png", "What is it?", "a liver", long="It is a liver.", kind="OPEN"),
        sample(2, "b.png", "Is it </s> a liver?", "yes", long="Yes, a liver.", kind="CLOSED"),
        sample(3, "copy.png", "Is it?", "word " * 60, "And?", "no"),
        sample(4, "tiny.png", "word " * 60, "yes", long="Yes."),
        sample(5, "blank.png", "Is it?", "yes", long="Yes."),
        sample(6, "none.png", "Is it?", "yes", long="Yes."),
        sample(7, "none.png", "Is it?", "yes", long="Yes."),
        sample(8, "cut.png", "Is it?", "yes", long="Yes."),
        sample(9, "../a.png", "Is it?", "yes", long="Yes."),
        sample(10, "a.png", "Is it?", " \u200b"),
        {"id": 11, "image": "a.png"},
        "no sample",
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{\n")
    return folder


@pytest.fixture(scope="module")
def report(faulty, model) -> DataReport:
    return check_records(faulty / "data.jsonl", faulty / "images", TokenCounter.from_folder(model), max_length=50)


def found(report: DataReport, kind: str) -> list[str]:
    return [finding.subject for finding in report.findings if finding.kind == kind]


def test_every_kind_is_found_once_and_nothing_ends_it(report, faulty):
    where = f"sample {{}} of {faulty / 'data.jsonl'} (line {{}})"
    assert found(report, "broken_sample") == [where.format(i, i + 1) for i in (11, 12, 13)]
    assert found(report, "empty_answer") == [where.format(10, 11)]
    assert found(report, "duplicate_id") == ["2"]
    assert found(report, "missing_image") == ["none.png"]
    assert found(report, "unreadable_image") == ["cut.png", "../a.png"]
    assert found(report, "special_token") == ["2"]
    assert found(report, "no_room") == ["4"]
    assert found(report, "too_long") == ["3"]
    assert found(report, "no_extended_answer") == ["3"]
    assert found(report, "duplicate_sample") == ["2", "7"]
    assert found(report, "same_image") == ["a.png"]
    assert found(report, "small_image") == ["tiny.png"]
    assert found(report, "blank_image") == ["blank.png"]
    assert Counter(finding.kind for finding in report.findings).keys() == KINDS.keys() - {"huge_image"}
    assert [KINDS[finding.kind][0] for finding in report.findings] == [f.problem for f in report.findings]


def test_numbers_of_the_report(report):
    assert (report.samples, report.turns, report.image_names) == (14, 11, 8)
    assert report.answer_types == {"CLOSED": 1, "OPEN": 2, "none": 7}
    assert report.turns_without_extended_answer == 2
    assert report.repeated == {"image": 4, "answers": 9, "extended_answers": 8}
    assert sorted(report.image_sizes) == [(8, 8), (40, 40), (40, 40), (40, 40), (40, 40)]
    assert report.tokens["answers"].maximum == 61
    details = {finding.subject: finding.detail for finding in report.findings}
    assert "record 6, 7" in details["none.png"]
    assert details["cut.png"].startswith("record 8: ")
    assert details["a.png"] == "same as copy.png"


def test_tokens_are_counted_as_training_sees_them(model):
    counter = TokenCounter.from_folder(model)
    record = Record("1", "a.png", (Turn("What is it?", "a liver", "It is a liver"), Turn("And?", "no", "No")))
    (lengths,) = counter.count([record])
    text, _ = conversation_text([("What is it?", "a liver"), ("And?", "no")], "</s>")
    assert lengths.conversation == len(counter.tokenizer(text)["input_ids"]) - 1 + IMAGE_TOKENS
    ahead = counter.tokenizer(text[: text.index(" a liver")])["input_ids"]
    assert lengths.first_answer == len(ahead) - 1 + IMAGE_TOKENS
    assert (lengths.answers, lengths.extended_answers, lengths.special_token) == (3, 5, None)
    (bare,) = counter.count([Record("1", "a.png", (Turn("q", "a"),))])
    assert bare.extended_answers is None


def test_statistics():
    assert LengthStatistics.of(range(1, 101)) == LengthStatistics(100, 1, 50.5, 95, 100)


def test_the_limit_of_length_is_exact(model, tmp_path):
    picture(tmp_path / "a.png", 0)
    record = Record("1", "a.png", (Turn("word " * 9, "yes"),))
    write_records(tmp_path / "a.json", [record])
    counter = TokenCounter.from_folder(model)
    (lengths,) = counter.count([record])
    expected = {
        lengths.conversation: [],
        lengths.conversation - 1: ["too_long"],
        lengths.first_answer + 1: ["too_long"],
        lengths.first_answer: ["no_room"],
    }
    for limit, kinds in expected.items():
        report = check_records(tmp_path / "a.json", tmp_path, counter, limit)
        assert [finding.kind for finding in report.findings] == kinds


def test_wrong_tokenizer_folders(model, tmp_path):
    with pytest.raises(ValueError, match="must be an existing folder; got"):
        TokenCounter.from_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="must hold a tokenizer of transformers; got an error"):
        TokenCounter.from_folder(tmp_path)
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must have a config\.json with image_seq_length"):
        TokenCounter.from_folder(tmp_path / "model")
    assert TokenCounter.from_folder(tmp_path / "model", 7).image_tokens == 7


def test_huge_images(tmp_path, monkeypatch):
    picture(tmp_path / "a.png", 0)
    write_records(tmp_path / "a.json", [Record("1", "a.png", (Turn("q", "a"),))])
    monkeypatch.setattr(module, "HUGE_PIXELS", 1599)
    assert found(check_records(tmp_path / "a.json", tmp_path), "huge_image") == ["a.png"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)
    (finding,) = check_records(tmp_path / "a.json", tmp_path).findings
    assert finding.kind == "unreadable_image"
    assert "at most 1599 pixels" in finding.detail


@pytest.mark.parametrize("workers", [1, 4])
def test_images_of_training_raise_or_are_counted(tmp_path, workers):
    for number in range(20):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "7.png").write_bytes(b"")
    names = [f"{number}.png" for number in [*range(20), 7, 99]]
    records = [Record(str(number), name, (Turn("q", "a"),)) for number, name in enumerate(names)]
    with pytest.raises(ImageError, match=r"record '7': .*7\.png"):
        check_images(records, tmp_path, skip_bad=False, workers=workers)
    kept, skipped, reason = check_images(records, tmp_path, skip_bad=True, workers=workers)
    assert [record.id for record in kept] == [str(number) for number in range(20) if number != 7]
    assert skipped == 3
    assert "7.png" in (reason or "")
    assert check_images(kept, open_image_store(tmp_path, tmp_path), skip_bad=False) == (kept, 0, None)


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["data", "check", *map(str, arguments)])
    return options.run(options)


def test_the_command_reports_and_writes(faulty, model, tmp_path, capsys):
    options = ("--images", faulty / "images", "--tokenizer", model, "--max-length", 50, "--workers", 2)
    files = ("--json", tmp_path / "new" / "a.json", "--plot", tmp_path / "new" / "a.png")
    assert run(faulty / "data.jsonl", *options, *files) == 1
    output = capsys.readouterr()
    assert "Problem: missing images: 1\n" in output.out
    assert re.search(r"^conversation +\d+ +\d+\.\d +\d+ +\d+$", output.out, re.MULTILINE)
    assert "checking images" in output.err
    content = json.loads((tmp_path / "new" / "a.json").read_text())
    assert content["counts"]["unreadable_image"] == len(content["findings"]["unreadable_image"]) == 2
    assert content["problems"] == sum(content["counts"][kind] for kind, (bad, _) in KINDS.items() if bad)
    assert f"{content['problems']} problems, " in output.out
    with Image.open(tmp_path / "new" / "a.png") as plot:
        assert plot.size == (1210, 814)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "a.png"]


def test_exit_codes_follow_what_training_would_do(tmp_path, capsys):
    picture(tmp_path / "a.png", 0)
    data = tmp_path / "a.jsonl"
    lines = [sample(1, "a.png", "Is it?", "yes"), sample(1, "none.png", "Is it?", "no")]
    data.write_text(json.dumps(lines[0]))
    assert run(data, "--images", tmp_path) == 0
    data.write_text("\n".join(map(json.dumps, lines)))
    assert run(data, "--images", tmp_path, "--bad-samples", "skip", "--allow-duplicate-ids") == 0
    assert run(data, "--images", tmp_path, "--bad-samples", "skip") == 1
    assert run(data, "--images", tmp_path, "--allow-duplicate-ids") == 1
    capsys.readouterr()
    assert run(data, "--images", tmp_path, "--json", "-") == 1
    assert json.loads(capsys.readouterr().out)["counts"] == {"duplicate_id": 1, "missing_image": 1}
    data.write_text("")
    assert run(data, "--images", tmp_path) == 1
    assert "at least one sample" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be an existing folder"):
        run(data, "--images", tmp_path / "none")


def test_long_lists_are_shortened_on_the_screen_only(tmp_path):
    write_records(tmp_path / "a.json", [Record(f"{i}" * 200, f"{i}.png", (Turn("q", "a"),)) for i in range(25)])
    report = check_records(tmp_path / "a.json", tmp_path)
    text = command.format_report(report)
    assert "missing images: 25" in text
    assert text.count("  and 15 more") == 1
    assert max(map(len, text.splitlines()[4:])) <= 200
    assert len(report.to_json()["findings"]["missing_image"]) == 25


def test_pictures_of_reports_with_little_in_them(tmp_path):
    report = DataReport("data.json", "folder images")
    plot_report(report, tmp_path / "empty.png", 2048)
    report.image_sizes, report.token_lengths = [(64, 64)], {"conversation": [5], "answers": [1]}
    plot_report(report, tmp_path / "one.png", 2048)
    assert len(list(tmp_path.glob("*.png"))) == 2
    with pytest.raises(OSError, match="directory"):
        plot_report(report, tmp_path, 2048)
    assert len(list(tmp_path.parent.glob("*.partial"))) == 0


def test_an_interrupt_ends_it_at_once_and_leaves_nothing(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(600)]
    write_records(tmp_path / "a.json", [Record(name, name, (Turn("q", "a"),)) for name in names])
    opened = []

    class Store:
        def open(self, name: str) -> Image.Image:
            opened.append(name)
            if name == "30.png":
                raise KeyboardInterrupt
            time.sleep(0.002)
            return Image.new("RGB", (40, 40))

        def describe(self) -> str:
            return "store"

    monkeypatch.setattr("exgra_adapter.data.stores.open_image_store", lambda *_: Store())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.json", "--images", tmp_path, "--json", tmp_path / "b.json", "--workers", 2)
    assert len(opened) < 300
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_real_data(data_folder):
    folder = data_folder / "medvqa" / "vqa_rad"
    report = check_records(folder / "train_w_options_new_with_images.json", folder / "images")
    assert (report.samples, report.image_names, report.problems) == (347, 37, 0)
