"""What benchmarks are judged by: complete rows, joined runs, fitted powers, performance profiles, a run in parts."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = {
    "versions": {"torch": "9.9"},
    "machine": {"cpu": "Test CPU", "cores": 2, "system": "Linux x86_64"},
    "threads": 2,
    "commit": "abc",
    "load": 0.5,
    "memory_bytes": 2e6,
    "busy_cores": 1.5,
}
Row = dict[str, Any]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT)
    pytest.importorskip("benchmarks")
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def row(group: str, name: str = "test_a", median: float = 1.0, suite: str = "a.py", **info: object) -> Row:
    return {
        "group": group,
        "name": name,
        "fullname": f"{suite}::{name}",
        "stats": {"median": median, "max": median},
        "extra_info": {**ORIGIN, **info},
    }


def without(complete: Row, *keys: str) -> Row:
    return {**complete, "extra_info": {key: value for key, value in complete["extra_info"].items() if key not in keys}}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, []),
        ({"gap": None, "objective": 3.0}, []),
        ({"objective": [1.0, math.inf]}, []),
        ({"gap": None}, ["objective or gap"]),
        ({"gap": math.nan}, ["objective or gap"]),
        ({"gap": []}, ["objective or gap"]),
        ({"gap": None, "phase": "build"}, []),
        ({"memory_bytes": None}, ["memory_bytes"]),
        ({"memory_bytes": None, "machine": {"system": "Darwin arm64"}}, []),
        ({"threads": 0}, ["threads"]),
        ({"threads": None, "commit": ""}, ["threads", "commit"]),
    ],
    ids=str,
)
def test_rows_must_be_complete(module, change: dict[str, Any], missing: list[str]):
    assert module("rows").lacking(row("lap", **{"gap": 0.0, **change})) == missing


def test_rows_without_a_solver_are_exempt(module):
    assert module("rows").lacking({"group": "import", "extra_info": {}}) == []


def test_the_report_refuses_incomplete_rows(module, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    report = module("report")
    for name in ("JSON", "REPORT"):
        monkeypatch.setattr(report, name, tmp_path / name)
    rows = [row("lap", gap=0.0), *(without(row("lap", f"test_{i}", gap=0.0), "memory_bytes") for i in range(25))]
    report.JSON.write_text(json.dumps({"benchmarks": rows}), encoding="utf-8")
    assert report.main() == 1
    error = capsys.readouterr().err
    assert "got 25 that do not" in error
    assert "a.py::test_0 lacks memory_bytes" in error
    assert "and 5 more" in error
    assert not report.REPORT.exists()


def test_a_report_of_one_group_says_what_was_left_out(module, tmp_path, monkeypatch):
    report, growth = module("report"), module("growth_report")
    monkeypatch.setattr(report, "JSON", tmp_path / "benchmark.json")
    monkeypatch.setattr(report, "REPORT", tmp_path / "report.md")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(growth, "PICTURE", tmp_path / "growth.png")
    monkeypatch.setattr(report.alignment, "JSON", tmp_path / "alignment.json")
    monkeypatch.setattr(report.keypoint_report, "JSON", tmp_path / "keypoints.json")
    rows = [
        row("growth", f"test_{n}", n**2 / 1e6, of="lap", axis="n", value=n, fixed="batch 4", gap=0.0)
        for n in (10, 20, 40)
    ]
    rows += [
        row("growth", f"test_t{t}", 1 / t, of="lap", axis="threads", value=t, fixed="n = 9", gap=0.0) for t in (1, 2)
    ]
    figures = {
        "fuzzing": {"inputs": 12345, "findings": 0, "per_reader": {"dd": {"inputs": 7}, "qaplib": {"inputs": 8}}}
    }
    (tmp_path / "robustness.json").write_text(json.dumps(figures), encoding="utf-8")
    run = {"benchmarks": rows, "left_out": {"a.py": ["lpmp_py is not installed"]}}
    report.JSON.write_text(json.dumps(run), encoding="utf-8")
    assert report.main() == 0
    text = report.REPORT.read_text(encoding="utf-8")
    assert "Left out: lpmp_py is not installed." in text
    assert "| lap | n = 10 to 40 | batch 4 | 0.1 to 1.6 | 2.00 ± 0.00 | 2.00 | 2 to 2 | 0 |" in text
    assert "| lap | threads = 1 to 2 | n = 9 | 1,000 to 500 | -1.00 | -1.00 | 2 to 2 | 0 |" in text
    assert "| inputs | 12,345 |" in text
    assert "| dd | 7 |" in text
    assert growth.PICTURE.read_bytes().startswith(b"\x89PNG")


def test_resources_name_rows_that_took_more_cores(module):
    rows = [row("lap", "test_a", solver="mine"), row("lap", "test_b", solver="theirs", busy_cores=3.5)]
    text = module("other_reports").resources(rows)
    assert "More cores than threads: test_b 3.50." in text
    assert "| lap | mine | 1 | 2 | 1.5 | 2 | 2 |" in text
    assert "No row kept more cores busy" in module("other_reports").resources(rows[:1])


def test_joined_rows_keep_their_places(module):
    stored = {"benchmarks": [row("lap", name, suite=suite) for suite, name in ("ax", "ay", "bz")]}
    stored |= {"left_out": {"a": ["old"], "c": ["kept"]}, "version": 1}
    new = {"benchmarks": [row("lap", "y", 5.0, suite="a"), row("lap", "w", suite="a")], "left_out": {"a": ["new"]}}
    joined = module("rows").joined
    by_name = joined(stored, new)
    assert [(each["fullname"], each["stats"]["median"]) for each in by_name["benchmarks"]] == [
        ("a::x", 1.0),
        ("a::y", 5.0),
        ("a::w", 1.0),
        ("b::z", 1.0),
    ]
    assert by_name["left_out"] == {"a": ["new"], "c": ["kept"]}
    assert by_name["version"] == 1
    whole = joined(stored, new, suites=["a"])
    assert [each["fullname"] for each in whole["benchmarks"]] == ["a::y", "a::w", "b::z"]
    assert joined(None, new, suites=["a"])["benchmarks"] == new["benchmarks"]
    assert joined(stored, {"benchmarks": []}, suites=["a"])["left_out"] == {"c": ["kept"]}


def test_a_power_is_found_and_its_interval_holds(module):
    fit = module("growth_fit").fit_power
    exact = fit([8, 1, 4, 2], [3 * n**2.5 for n in (8, 1, 4, 2)])
    assert exact.exponent == pytest.approx(2.5)
    assert exact.local == pytest.approx(2.5)
    assert exact.factor == pytest.approx(3)
    assert exact.half_width == pytest.approx(0, abs=1e-6)
    rng = np.random.default_rng(0)
    sizes = np.array([1, 2, 4, 8, 16])
    found = [fit(sizes, sizes**1.5 * np.exp(rng.normal(0, 0.3, 5))) for _ in range(400)]
    inside = np.mean([abs(each.exponent - 1.5) <= each.half_width for each in found])
    assert 0.91 < inside < 0.98


def test_two_points_have_no_interval_and_one_has_no_power(module):
    fit = module("growth_fit").fit_power
    assert str(fit([1, 2], [4.0, 2.0])) == "-1.00"
    assert fit([1, 2], [4.0, 2.0]).half_width is None
    assert fit([2], [1.0]) is None
    assert fit([2, 2], [1.0, 2.0]) is None
    assert str(fit([1, 10, 100], [1.0, 10.0, 100.0])) == "1.00 ± 0.00"
    with pytest.raises(ValueError, match="fit_power: sizes and costs must be positive"):
        fit([1, 2], [1.0, 0.0])


def test_profiles_count_only_the_best_objectives(module):
    profiles = module("profiles")
    answer = profiles.Answer
    answers = {
        "fast": {"p": answer(1.0, -10.0), "q": answer(1.0, -4.0)},
        "good": {"p": answer(3.0, -10.0), "q": answer(8.0, -5.0)},
    }
    assert profiles.time_ratios(answers) == {"fast": [1.0, math.inf], "good": [3.0, 1.0]}
    assert profiles.excesses(answers) == {"fast": {"p": 0.0, "q": 0.2}, "good": {"p": 0.0, "q": 0.0}}
    # A better value from elsewhere leaves an instance unsolved; a worse one changes nothing.
    ratios = profiles.time_ratios(answers, {"p": -11.0, "q": -1.0})
    assert ratios == {"fast": [math.inf, math.inf], "good": [math.inf, 1.0]}
    assert [profiles.share_within([1.0, 2.0, math.inf, math.inf], limit) for limit in (0.5, 1, 2, 1e9)] == [
        0.0,
        0.25,
        0.5,
        0.5,
    ]


def test_profiles_compare_what_all_took(module):
    profiles = module("profiles")
    answer = profiles.Answer(1.0, 1.0)
    many = {str(place): answer for place in range(10)}
    answers = {"all": many, "most": {name: many[name] for name in "01234567"}, "few": {"0": answer}, "none": {}}
    kept = profiles.comparable(answers)
    assert {solver: sorted(own) for solver, own in kept.items()} == {
        solver: list("01234567") for solver in ("all", "most")
    }
    assert profiles.comparable({}) == {}


def test_profiles_are_drawn_of_rows(module, tmp_path, monkeypatch):
    profiles = module("profiles")
    monkeypatch.setattr(profiles, "PICTURE", tmp_path / "profiles.png")
    shared = {"noise": 1.0, "nodes": 8}
    sparse = [
        row("qap-sparse", solver="mine", case_seconds=[1.0, 1.0], objectives=[-2.0, -2.0], **shared),
        row("qap-sparse", solver="theirs", case_seconds=[20.0, 0.5], objectives=[-2.0, -1.9], **shared),
    ]
    judged = {"x": {"ms": 1.0, "objective": 12.0, "best": 10.0}, "y": {"ms": 1.0, "objective": 10.0, "best": 10.0}}
    better = {name: {"ms": 5.0, "objective": 10.0, "best": 10.0} for name in judged}
    dense = [row("qap-dense", solver="mine", instances=better), row("qap-dense", solver="theirs", instances=judged)]
    text = profiles.section(sparse, dense, [])
    assert "| ExGra instances, 2 | fastest | within 10 times | within 100 times | best objective |" in text
    assert "| mine | 100% | 100% | 100% | 100% | 100% | 100% |" in text
    assert "| theirs | 0% | 0% | 50% | 50% | 50% | 100% |" in text
    assert "| QAPLIB, 2 |" in text
    assert "| mine | 50% | 100% | 100% | 100% | 100% | 100% |" in text
    assert "| theirs | 50% | 50% | 50% | 50% | 50% | 50% |" in text
    assert profiles.PICTURE.read_bytes().startswith(b"\x89PNG")
    assert "Generated dense problems, 2" in profiles.section(sparse, [], dense)
    assert profiles.section([], [], []) == ""


@pytest.fixture
def driver(module, tmp_path: Path):
    """Runs parts, given by name and exit code, and returns the exit code, what ran, and what was said."""
    run = module("run")

    def drive(codes: dict[str, int], tree: str = "abc") -> tuple[int, list[str], str]:
        ran: list[str] = []
        said: list[str] = []

        def part(name: str, code: int) -> Any:
            return run.Part(name, "reports" if name == "report" else "suites", lambda: ran.append(name) or code)

        code = run.run_parts([part(*each) for each in codes.items()], tree, tmp_path / "journal.json", said.append)
        return code, ran, "\n".join(said)

    return drive


def test_a_failed_part_keeps_the_others_and_is_done_again(driver):
    code, ran, said = driver({"a": 0, "b": 3, "report": 0})
    assert (code, ran) == (1, ["a", "b", "report"])
    assert "b failed after" in said
    assert "Failed: b." in said
    assert "total" in said
    code, ran, said = driver({"a": 0, "b": 0, "report": 0})
    assert (code, ran) == (0, ["b", "report"])
    assert "a: done before" in said
    # What has passed as a whole is measured as a whole again.
    assert driver({"a": 0, "b": 0, "report": 0})[1] == ["a", "b", "report"]


@pytest.mark.parametrize("trees", [("abc", "abd"), ("abc-dirty", "abc-dirty"), ("unversioned", "unversioned")], ids=str)
def test_parts_of_another_tree_are_done_again(driver, trees: tuple[str, str]):
    driver({"a": 0, "b": 1}, trees[0])
    assert driver({"a": 0, "b": 0}, trees[1])[1] == ["a", "b"]


def test_memory_is_that_of_the_block(module):
    usage_of = module("resources").watching
    with usage_of() as nothing:
        pass
    with usage_of() as usage:
        block = np.ones(8_000_000)  # 64 MB
    del block
    if usage.memory_bytes is None:
        pytest.skip("this system does not tell the peak of resident memory")
    assert 60e6 < usage.memory_bytes < 90e6
    assert nothing.memory_bytes < 20e6
    assert usage.busy_cores > 0
