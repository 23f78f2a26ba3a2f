"""The README's measured figures are those of the stored results, and a changed one is noticed."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = {
    "versions": {"pylibmgm": "9.9"},
    "machine": {"cpu": "Test CPU", "cores": 2, "system": "Linux x86_64"},
    "threads": 1,
}
Write = Callable[[dict[str, Any]], str]


@pytest.fixture
def headline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    pytest.importorskip("benchmarks")
    return importlib.import_module("benchmarks.headline")


@pytest.fixture
def written(headline: ModuleType, tmp_path: Path) -> Write:
    """Returns what is written of results, which are given by file name."""

    def write(results: dict[str, Any]) -> str:
        for name, content in results.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        readme = tmp_path / "README.md"
        readme.write_text(f"before\n{headline.BEGIN}\nold\n{headline.END}\nafter\n", encoding="utf-8")
        assert headline.main([], readme, tmp_path) == 0
        assert headline.main(["--check"], readme, tmp_path) == 0
        text = readme.read_text(encoding="utf-8")
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        return " ".join(text.split())

    return write


def row(group: str, median: float = 1.0, **info: object) -> dict[str, Any]:
    return {"group": group, "name": group, "stats": {"median": median}, "extra_info": {**ORIGIN, **info}}


def suites(*rows: dict[str, Any], **others: object) -> dict[str, Any]:
    return {"benchmark.json": {"benchmarks": list(rows), **others}}


def test_the_readme_says_what_the_results_say(headline: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert headline.main(["--check"]) == 0, capsys.readouterr().err


def test_every_changed_number_is_noticed(headline: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = text.index(headline.BEGIN) + len(headline.BEGIN), text.index(headline.END)
    numbers = list(re.finditer(r"\d+", text[begin:end]))
    assert len(numbers) > 50
    readme = tmp_path / "README.md"
    for number in numbers[:: len(numbers) // 10]:
        at = begin + number.start()
        readme.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}", encoding="utf-8")
        before = readme.read_bytes()
        assert headline.main(["--check"], readme) == 1
        assert "Run `python -m benchmarks.headline`" in capsys.readouterr().err
        assert readme.read_bytes() == before


def test_a_changed_result_is_noticed(headline: ModuleType, tmp_path: Path):
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "keypoints.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    for each in stored["benchmarks"]:
        each["untrained"] /= 2
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert headline.main(["--check"], ROOT / "README.md", tmp_path) == 1


def test_nothing_is_claimed_without_results(written: Write):
    text = written({})
    assert "Nothing yet" in text
    assert "**" not in text


def test_claims_follow_the_figures(written: Write):
    sparse = {"nodes": 8, "noise": 2.0, "seeds": 20}
    text = written(
        suites(
            row("qap-sparse", 0.0031, solver="graphmatch", phase="native", certified=0.999, **sparse),
            row(
                "qap-sparse",
                0.5,
                solver="pylibmgm",
                phase="solve",
                graphmatch_better_on=1,
                graphmatch_worse_on=7,
                **sparse,
            ),
            row("qap-real", 0.002, reached=True, certified=False),
            row("qap-real", 0.004, reached=False, certified=False),
            row(
                "gradients", 0.002, estimator="IMLE", solver="quick", noise=0.3, nodes=16, batch=6, package="graphmatch"
            ),
            row("gradients", 0.05, estimator="IMLE", solver="quick", noise=0.3, nodes=16, batch=6, package="pyepo"),
            left_out={"a": ["lpmp_py is not installed"], "b": ["lpmp_py is not installed"]},
        )
    )
    assert "On 2 cores (Test CPU)" in text
    assert "Left out: lpmp_py is not installed." in text
    assert "| noise 2: graphmatch, ms; certified | 3.1; 99.9 % |" in text
    assert "| pylibmgm 9.9, ms; graphmatch better / worse | 500; 1 / 7 |" in text
    assert "(2): published value reached on 1, a gap of at most 0.1 % certified on 0, in 3.0 ms" in text
    assert "`IMLE` 2.0 (N = 16); PyEPO's around the same solver 25 times as long." in text
    assert "QAPLIB" not in text


def test_missed_targets_of_the_gpu_are_told(written: Write):
    rates = {"problems_per_second": 8e3, "certified_per_second": 4e3, "cpu_problems_per_second": 4e3, "certified": 0.5}
    found = {"solver": "Portfolio", "nodes": 16, "noise": 0.3, "batch": 64, "iterations": 3.0, "device": "Test GPU"}
    text = written(
        {
            "cuda.json": suites(row("qap-sparse-cuda", objective=-9.0, cpu_objective=-10.0, **rates, **found))[
                "benchmark.json"
            ]
        }
    )
    assert "**GPU** (Test GPU" in text
    assert "4,000 certified ExGra problems of 16 nodes per second (noise 0.3), 2.0 times 1 thread of its CPU" in text
    assert "objectives within 0.1 of the CPU's" in text
    assert "Targets missed in some case: certified ExGra problems" in text


@pytest.mark.parametrize("text", ["no markers\n", "{end}\n{begin}\n", "{begin}\n{end}\n{begin}\n{end}\n"])
def test_markers_must_be_there_once(headline: ModuleType, text: str):
    with pytest.raises(ValueError, match="replaced: document must hold"):
        headline.replaced(text.format(begin=headline.BEGIN, end=headline.END), "new")
