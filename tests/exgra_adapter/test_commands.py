"""Corners of the commands: what they refuse, what a failure in the last moment leaves behind, what few inputs show."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from exgra_adapter.captions.command import add_parser
from exgra_adapter.captions.requests import read_system_prompt
from exgra_adapter.cli import main
from exgra_adapter.complete_file import complete_file
from exgra_adapter.data.check import HUGE_PIXELS, DataReport
from exgra_adapter.data.files import read_records
from exgra_adapter.data.plots import plot_report
from exgra_adapter.data.preparation import prepare as preparation
from exgra_adapter.data.preparation.command import format_summary
from exgra_adapter.data.preparation.llava_med import LlavaMed
from exgra_adapter.data.preparation.prepare import Preparation, prepare
from exgra_adapter.demo import run
from exgra_adapter.endpoint.journal import Journal
from exgra_adapter.endpoint.settings import KEY_VARIABLE
from exgra_adapter.evaluation import sharing
from exgra_adapter.models import load_model


def sample(number: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": "Where?\n<image>"}, {"from": "gpt", "value": f"left lung, level {number}"}]
    return {"id": number, "image": f"{number}.png", "conversations": turns}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([sample(number) for number in range(3)]))
    return path


def caption(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["caption", *map(str, arguments)])
    return options.run(options)


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "exgra_adapter", "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice" in done.stderr


def test_the_demo_command_says_where_the_report_is(tmp_path, capsys, monkeypatch):
    given: list[Any] = []
    monkeypatch.setattr(run, "run_demo", lambda *values: given.extend(values) or tmp_path / "report.md")
    assert main(["demo", "--output", str(tmp_path), "--seed", "3", "--threads", "2"]) == 0
    assert given == [tmp_path, 3, 2]
    assert f"Report: {tmp_path / 'report.md'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"must name an existing file; got .*prompt.txt. Start from the one that exgra-med caption"),
        (b"\xff\xfe", r"must be UTF-8 text; got other bytes"),
        (b" \n", r"must hold a prompt; got an empty file"),
    ],
)
def test_system_prompts_that_cannot_be_used_are_named(tmp_path, content, message):
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"read_system_prompt: .*{message}"):
        read_system_prompt(path)
    path.write_text(" Revise. \n")
    assert read_system_prompt(path) == "Revise."


def test_captions_refuse_what_makes_no_sense(source, capsys, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "sk-0")
    with pytest.raises(SystemExit):
        caption(source, "--output", source.with_name("out.json"), "--retry-failed")
    assert "--retry-failed goes with --resume" in capsys.readouterr().err
    endpoint = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m")
    for output in ("out.txt", "in.json"):
        with pytest.raises(ValueError, match=r"output must end in .json or .jsonl, and be no part of the"):
            caption(source, "--output", source.with_name(output), *endpoint)
    assert [path.name for path in source.parent.iterdir()] == ["in.json"]


def test_an_estimate_knows_what_is_done_and_that_it_does_not_know_the_price(source, capsys):
    journal = source.with_name("out.journal.jsonl")
    keys = [one.key(0) for one in merge_samples(source)]
    with Journal(journal, {"command": "caption"}, False) as written:
        written.write(keys[0], "ok", content={"revision": "It is."})
        written.write(keys[1], "failed", reason="none")
    common = (source, "--output", source.with_name("out.json"), "--dry-run", "--resume")
    assert caption(*common) == 0
    said = capsys.readouterr().out
    assert "3 question-answer pairs, 2 of them answered by an earlier run: 1 requests" in said
    assert "cost: unknown; give --price-input and --price-output" in said
    assert caption(*common, "--retry-failed", "--price-input", 1, "--price-output", 1) == 0
    said = capsys.readouterr().out
    assert "1 of them answered by an earlier run: 2 requests" in said
    assert "cost: about" in said


def merge_samples(source: Path) -> list[Any]:
    from exgra_adapter.captions.requests import stream_samples

    return list(stream_samples(source))


def test_a_merge_that_fails_leaves_no_file(tmp_path):
    def write() -> None:
        with complete_file(tmp_path / "out.json") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def fail_on_the_way_to(monkeypatch: pytest.MonkeyPatch, method: str, output: Path) -> None:
    """The first attempt to give something the name of the output fails, as on a disk that is full."""
    real, failed = getattr(Path, method), []

    def failing(self: Path, target: Path) -> Path:
        if Path(target) == output and not failed:
            failed.append(self)
            raise OSError("disk full")
        return real(self, target)

    monkeypatch.setattr(Path, method, failing)


def test_prepared_data_survive_a_failure_in_the_last_moment(source, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "plot_statistics", lambda facts, path: path.write_bytes(b""))
    output = tmp_path / "out"
    prepare(LlavaMed(source), output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    source.write_text(json.dumps([sample(9)]))
    fail_on_the_way_to(monkeypatch, "replace", output)
    with pytest.raises(OSError, match="disk full"):
        prepare(LlavaMed(source), output, Preparation(overwrite=True))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "out"]


def test_an_earlier_demo_survives_a_failure_in_the_last_moment(tmp_path, monkeypatch):
    for name in ("demo", ".new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.md").write_text(name)
    fail_on_the_way_to(monkeypatch, "rename", tmp_path / "demo")
    with pytest.raises(OSError, match="disk full"):
        run._replace(tmp_path / "demo", tmp_path / ".new")
    assert (tmp_path / "demo" / "report.md").read_text() == "demo"


def test_missing_images_need_a_folder(source, tmp_path):
    with pytest.raises(ValueError, match=r"missing_images=drop must come with images; got no folder"):
        prepare(LlavaMed(source), tmp_path / "out", Preparation(missing_images="drop"))
    with pytest.raises(ValueError, match=r"images must be an existing folder; got .*none"):
        prepare(LlavaMed(source), tmp_path / "out", Preparation(images=tmp_path / "none"))


def test_the_summary_of_prepared_data_counts_what_is_missing():
    split = {"rows": 3, "images": 2}
    facts = {"splits": {"train": split}, "subsets": {}, "candidates": 4, "skipped_rows": {"rows": 2}}
    text = format_summary(facts | {"missing_images": {"images": 1, "rows": 2, "kept": False}})
    assert text.splitlines() == [
        "train.json         3 samples, 2 images",
        "candidates.json    4 answers",
        "missing images: 1; 2 samples without image, left out",
        "rows left out: 2",
    ]
    assert "without image, kept" in format_summary(facts | {"missing_images": {"images": 1, "rows": 2, "kept": True}})


def test_pictures_of_very_different_images_are_logarithmic(tmp_path):
    report = DataReport("d", "i", image_sizes=[(20, 30), (9000, 8000)])
    assert max(width * height for width, height in report.image_sizes) > HUGE_PIXELS
    plot_report(report, tmp_path / "wide.png", 100)
    plot_report(DataReport("d", "i", image_sizes=[(200, 300), (210, 310)]), tmp_path / "narrow.png", 100)
    wide, narrow = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("wide.png", "narrow.png"))
    assert wide.shape == narrow.shape
    assert (wide != narrow).any()


def test_words_that_parquet_keeps_in_a_dictionary_are_text(tmp_path):
    rows = [sample(number) for number in range(3)]
    table = pa.table(
        {
            "id": [str(row["id"]) for row in rows],
            "image": pa.array([row["image"] for row in rows]).dictionary_encode(),
            "conversations": [row["conversations"] for row in rows],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert [record.image for record in read_records(tmp_path / "a.parquet")] == ["0.png", "1.png", "2.png"]


def test_a_missing_pyarrow_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"parquet files need the package pyarrow; got an environment without it"):
        read_records(tmp_path / "a.parquet")


def test_a_broken_config_of_a_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"load_model: .*config.json must be JSON; got an error"):
        load_model(tmp_path)


def test_each_process_evaluates_on_the_gpu_of_its_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = []
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        devices.append(sharing.evaluation_device())
    assert devices == [torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cuda", 0)]


def test_a_process_that_died_ends_the_others_with_advice(monkeypatch):
    monkeypatch.setattr(sharing, "world_size", lambda: 2)

    def broken() -> None:
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(sharing.dist, "barrier", broken)
    with pytest.raises(OSError, match=r"answer: every process must finish its share; got one that ended early"):
        sharing._wait_for_others("answer")
