"""`graphmatch bench multigraph`: what it measures, concludes, prints and writes, and how it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

import graphmatch as gm
from graphmatch import cli
from graphmatch.studies import multigraph, multigraph_report, multigraph_scaling
from graphmatch.studies.multigraph import (
    ALL_PAIRS,
    BARYCENTER,
    BEST,
    CHEAPEST,
    GRAPH,
    METHODS,
    SAME_SOLVER,
    STAR,
    SYNCHRONIZE,
    Costs,
    MultiGraphStudy,
    Row,
    StudyResult,
    run_multigraph_study,
)
from graphmatch.studies.multigraph_problems import accuracy, memory_needed, planted_problem

QUICK = ["--graphs", "3", "4", "6", "--nodes", "5", "6", "--repetitions", "2"]
STUDY = MultiGraphStudy(graphs=(3, 4, 6), nodes=(5, 6), repetitions=2, noise=1.0)
TIMES = ("seconds", "arms", "pairs")


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run_multigraph_study(STUDY)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, result: StudyResult) -> list[MultiGraphStudy]:
    """The study has its answer ready; the list gets what it was asked."""
    asked: list[MultiGraphStudy] = []

    def answer(study: MultiGraphStudy, progress: Any) -> StudyResult:
        asked.append(study)
        progress("something")
        return result

    monkeypatch.setattr(multigraph, "run_multigraph_study", answer)
    return asked


def invented(seconds: dict[str, Callable[[int], float]], objective: dict[str, float] | None = None) -> StudyResult:
    """A result whose methods take this long for m graphs, 1 s otherwise, and cost this much, -100 otherwise."""
    graphs = (4, 8, 16, 32)
    rows = []
    for m in graphs:
        for name in METHODS:
            cost = (objective or {}).get(name, -100.0)
            row = Row(
                graphs=m, nodes=8, method=name, seconds=(seconds.get(name, lambda m: 1.0)(m),), objective=(cost,),
                excess=((cost + 100) / 100,), gap=(0.0,), own_gap=(None,), consistency_before=(None,),
                consistency=(1.0,), accuracy=(1.0,),
            )  # fmt: skip
            rows.append(row)
    costs = tuple(
        Costs(graphs=m, nodes=8, seconds=(m**2,), arms=(float(m),), pairs=(m * m / 2,), memory=1) for m in graphs
    )
    study = MultiGraphStudy(graphs=graphs, nodes=(8,))
    return StudyResult(study=study, rows=tuple(rows), costs=costs, skipped=(), versions={}, seconds=1.0)


def without_times(result: StudyResult) -> list[dict[str, Any]]:
    rows = [dataclasses.asdict(row) for row in (*result.rows, *result.costs)]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def test_every_method_has_the_same_problems(result: StudyResult):
    sizes = [(3, 5), (4, 5), (6, 5), (4, 6), (6, 6)]
    assert sorted({(row.graphs, row.nodes) for row in result.rows}) == sorted(sizes)
    assert len(result.rows) == len(sizes) * len(METHODS)
    for size in sizes:
        rows = {row.method: row for row in result.rows if (row.graphs, row.nodes) == size}
        assert set(rows) == set(METHODS)
        for place in range(STUDY.repetitions):
            copies, planted = multigraph._copies(STUDY, *size, place)
            problem = gm.MultiGraphProblem.from_graphs(copies)
            bound = gm.AllPairs().solve(problem).lower_bound
            lowest = min(row.objective[place] for row in rows.values())
            for name, make in METHODS.items():
                found, row = make(copies, STUDY.neighbours).solve(problem), rows[name]
                assert row.objective[place] == pytest.approx(found.objective, rel=1e-12)
                assert row.accuracy[place] == accuracy(found, planted)
                assert row.excess[place] == pytest.approx((found.objective - lowest) / abs(lowest), abs=1e-12)
                assert row.gap[place] <= (found.objective - bound) / abs(found.objective) + 1e-12
                assert row.consistency[place] == 1
                solved = found.pairwise is not None
                assert (row.consistency_before[place] is not None) == (row.own_gap[place] is not None) == solved
                assert row.own_gap[place] is None or row.own_gap[place] >= row.gap[place]
            assert min(row.excess[place] for row in rows.values()) == 0
    assert all(seconds > 0 for row in result.rows for seconds in row.seconds)
    assert torch.get_num_threads() == 1, "the threads are as before"


def test_the_same_seed_gives_the_same_figures(result: StudyResult):
    assert without_times(run_multigraph_study(STUDY)) == without_times(result)
    assert without_times(run_multigraph_study(dataclasses.replace(STUDY, seed=3))) != without_times(result)


def test_problems_without_noise_are_solved():
    found = run_multigraph_study(MultiGraphStudy(graphs=(3, 5), nodes=(6,), repetitions=1, noise=0.0))
    assert {row.accuracy for row in found.rows} == {(1.0,)}
    assert {row.excess for row in found.rows} == {(0.0,)}
    assert all(row.gap[0] == pytest.approx(0, abs=1e-6) for row in found.rows)


def test_fewer_graphs_are_a_part_of_more():
    few, planted = planted_problem(3, 5, 0.7, 4, 2, seed=1)
    more, planted_more = planted_problem(5, 5, 0.7, 4, 2, seed=1)
    assert torch.equal(planted, planted_more[:3])
    shared = [place for place, pair in enumerate(more.pairs.tolist()) if max(pair) < 3]
    assert torch.equal(few.costs.unary_costs, more.costs.unary_costs[shared])
    assert torch.equal(few.costs.quadratic_costs, more.costs.quadratic_costs[shared])


def test_accuracy_counts_nodes_of_the_same_point():
    problem, planted = planted_problem(4, 6, 2.0, 3, 2, seed=2)
    found = gm.Star().solve(problem)
    right = [
        int(planted[b][found.matching(a, b)[i]]) == int(planted[a][i])
        for a, b in combinations(range(4), 2)
        for i in range(6)
    ]
    assert 0 < sum(right) < len(right)
    assert accuracy(found, planted) == pytest.approx(sum(right) / len(right))


def test_sizes_form_a_cross_with_a_corner():
    default = MultiGraphStudy()
    assert (default.usual_graphs, default.usual_nodes) == (8, 16)
    assert set(default.sizes()) == {(m, 16) for m in default.graphs} | {(8, n) for n in default.nodes} | {(32, 64)}
    assert default.sizes()[-1] == (32, 64)
    assert MultiGraphStudy(graphs=(5,), nodes=(7,)).sizes() == [(5, 7)]


def test_sizes_that_need_too_much_are_left_out_with_the_reason():
    limit = memory_needed(3, 5, 5)
    assert memory_needed(3, 6, 5) > limit < memory_needed(4, 5, 5)
    found = run_multigraph_study(dataclasses.replace(STUDY, memory=limit, repetitions=1))
    assert {(row.graphs, row.nodes) for row in found.rows} == {(3, 5)}
    assert {(each.graphs, each.nodes) for each in found.skipped} == {(4, 5), (6, 5), (4, 6), (6, 6)}
    assert all("GiB" in each.reason for each in found.skipped)
    assert "Left out: m = 6, n = 6: needs about" in multigraph_report.as_markdown(found)

    found = run_multigraph_study(dataclasses.replace(STUDY, seconds=1e-9, repetitions=1))
    assert {(row.graphs, row.nodes) for row in found.rows} == {(3, 5)}
    assert all("s are left" not in each.reason or "would take" in each.reason for each in found.skipped)
    assert len(found.skipped) == 4

    found = run_multigraph_study(dataclasses.replace(STUDY, memory=1))
    assert found.rows == ()
    assert "No size was measured." in multigraph_report.as_markdown(found)
    assert multigraph_report.as_png(found).startswith(b"\x89PNG")
    json.dumps(multigraph_report.as_json(found), allow_nan=False)


def test_the_memory_estimate_is_above_the_costs():
    for graphs, nodes in ((3, 8), (6, 16)):
        problem, _ = planted_problem(graphs, nodes, 0.5, 8, 5, seed=0)
        costs = problem.costs
        size = sum(each.numel() * each.element_size() for each in (costs.unary_costs, costs.quadratic_costs))
        assert 2 * size <= memory_needed(graphs, nodes, 5) < 100 * size


def test_power_laws_are_recovered():
    found = multigraph_scaling.fit((2, 4, 8, 16, 32), (9.0, 9.0, 3 * 8**1.5, 3 * 16**1.5, 3 * 32**1.5))
    assert found.sizes == (8, 16, 32), "small sizes are left out"
    assert found.exponent == pytest.approx(1.5)
    assert found.factor == pytest.approx(3)
    assert found.standard_error == pytest.approx(0, abs=1e-6)
    # By hand: x = 0, log 2, 2 log 2 and y = 0, log 2, 4 log 2 have slope 2; rests 1/3, -2/3, 1/3 (times log 2).
    found = multigraph_scaling.fit((1, 2, 4), (1.0, 2.0, 16.0))
    assert found.exponent == pytest.approx(2)
    assert found.standard_error == pytest.approx(math.sqrt((6 / 9) / 1 / 2))
    assert multigraph_scaling.fit((1, 2), (1.0, 2.0)).standard_error is None
    assert multigraph_scaling.fit((4,), (1.0,)) is None


def test_break_even_and_crossing():
    def at(m: int) -> float:
        return 10.0 * m

    found = invented(
        {BARYCENTER: at, ALL_PAIRS: lambda m: float(m**2), BEST: lambda m: 1000.0, SAME_SOLVER: lambda m: m**0.5}
    )
    even = multigraph_scaling.break_even
    assert even(found, BARYCENTER, ALL_PAIRS) == 16
    assert even(found, BARYCENTER, BEST) == 4
    assert even(found, BARYCENTER, SAME_SOLVER) is None
    fits = [multigraph_scaling.exponent(found, name, "graphs") for name in (BARYCENTER, ALL_PAIRS, SAME_SOLVER)]
    assert multigraph_scaling.crossing(*fits[:2]) == pytest.approx(10)
    assert multigraph_scaling.crossing(fits[1], fits[0]) is None
    assert multigraph_scaling.crossing(fits[0], None) is None

    text = multigraph_scaling.answers(found)[2]
    assert f"faster than {ALL_PAIRS} from m = 16 on; at m = 32 it takes 0.312 times as long." in text
    assert f"faster than {BEST} at every m" in text
    assert (
        f"not faster than {SAME_SOLVER} at the largest m: at m = 32 it takes 56.6 times as long; the fits do not"
        in text
    )


def test_extrapolated_crossings_are_called_so():
    found = invented({BARYCENTER: lambda m: 100.0 * m, ALL_PAIRS: lambda m: float(m**2)})
    assert "extrapolated, the fits cross at m = 100." in multigraph_scaling.answers(found)[2]


def test_answers_follow_the_figures():
    """Other figures give other words."""
    slow, quick = {STAR: lambda m: float(m)}, {STAR: lambda m: float(m**3)}
    assert "1.0 Star(0)" in multigraph_scaling.answers(invented(slow))[1]
    assert "3.0 Star(0)" in multigraph_scaling.answers(invented(quick))[1]
    found = multigraph_scaling.answers(invented(slow))[1]
    assert "1.0 the quadratic problems of a star, 2.0 those of all pairs" in found
    assert "16 times as many, take 16 times as long" in found
    cheap, dear = (multigraph_scaling.answers(invented({}, {BARYCENTER: cost}))[3] for cost in (-102.0, -99.0))
    assert f"against {ALL_PAIRS} -2 % at m = 32" in cheap
    assert f"against {SYNCHRONIZE} +1 % at m = 32" in dear


def test_the_short_answer():
    stars = {CHEAPEST: lambda m: 10.0 * m, BARYCENTER: lambda m: 100.0 * m, SAME_SOLVER: lambda m: float(m**2)}
    text = multigraph_scaling.answers(invented(stars, {CHEAPEST: -95.0}))[0]
    assert f"{CHEAPEST} is cheaper from m = 16 on (0.312 to 2.5 times the time)" in text
    assert "changes the objective by +5 % at m = 32" in text
    assert f"{BARYCENTER} is not cheaper at the largest m (3.12 to 25 times the time)" in text


def test_exponents_that_are_too_close_are_not_extrapolated():
    wavy = {4: 1.0, 8: 2.0, 16: 2.5, 32: 8.0}
    found = invented({BARYCENTER: lambda m: 9 * wavy[m], ALL_PAIRS: lambda m: m**1.1})
    assert "too close, for their errors" in multigraph_scaling.answers(found)[2]


def test_methods_that_are_beaten_are_not_in_front():
    found = invented({STAR: lambda m: 0.1, SYNCHRONIZE: lambda m: 0.5}, {STAR: -90.0, SYNCHRONIZE: -90.0, BEST: -101.0})
    rows = [row for row in found.rows if row.graphs == 32]
    front = [row.method for row in multigraph_scaling.undominated(rows)]
    assert front == [STAR, BEST]
    assert f"Not beaten in both time and objective, of 4 sizes: {STAR} 4" in multigraph_scaling.answers(found)[5]


def test_a_barycenter_graph_is_compared_with_the_costs_of_all_pairs_included():
    """100 m against m^2 / 2 and m^2 for the costs: equal at m = 67, and 10 m at m = 6.7."""
    text = multigraph_scaling.answers(invented({GRAPH: lambda m: 100.0 * m, ALL_PAIRS: lambda m: m * m / 2}))[6]
    assert f"it is not cheaper at the largest m than {ALL_PAIRS}, 2.08 times the time at m = 32" in text
    quick = {GRAPH: lambda m: 10.0 * m, ALL_PAIRS: lambda m: m * m / 2}
    text = multigraph_scaling.answers(invented(quick, {GRAPH: -99.0}))[6]
    assert f"it is cheaper from m = 8 on than {ALL_PAIRS}, 0.208 times the time at m = 32 (0.208 to 1.67" in text
    assert "changes the objective by +1 % (+1 % to +1 %)" in text
    assert "cheaper from m = 4 on" in multigraph_scaling.answers(invented({GRAPH: lambda m: 1.0 * m}))[6]


def test_prints_tables(capsys: pytest.CaptureFixture, at_once: list[MultiGraphStudy]):
    options = ["--seed", "5", "--noise", "0.25", "--threads", "2", "--memory", "1.5", "--seconds", "9"]
    assert cli.main(["bench", "multigraph", *QUICK, *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].startswith("# ")
    (header,) = (line for line in lines if line.startswith("| m ") and "excess" in line)
    start = lines.index(header)
    table = lines[start : start + 2 + 5 * len(METHODS)]
    assert {len(line) for line in table} == {len(header)}
    assert {line.count("|") for line in table} == {header.count("|")}
    assert all(any(f"| {name} " in line for line in table) for name in METHODS)
    text = " ".join(printed.out.split())
    assert "Exponents of the time in m (n = 5, m = 3 to 6)" in text
    assert "At n = 6, m = 4: " in text
    assert "At n = 6, m = 6: " in text
    assert at_once == [
        MultiGraphStudy(
            graphs=(3, 4, 6), nodes=(5, 6), repetitions=2, seed=5, noise=0.25, threads=2, memory=3 << 29, seconds=9.0
        )
    ]


def test_prints_json(capsys: pytest.CaptureFixture, at_once: list[MultiGraphStudy], result: StudyResult):
    assert cli.main(["bench", "multigraph", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content) == {
        "study", "rows", "costs", "skipped", "versions", "seconds", "exponents", "barycenter_faster_from", "answers"
    }  # fmt: skip
    assert content["study"]["seed"] == STUDY.seed
    assert content["versions"]["graphmatch"] == gm.__version__
    assert len(content["rows"]) == len(result.rows)
    assert content["rows"][0] == json.loads(json.dumps(dataclasses.asdict(result.rows[0])))
    exponents = content["exponents"]
    assert set(exponents) == {"graphs", "nodes"}
    assert set(exponents["graphs"]) == {*METHODS, "arms", "pairs", "costs"}
    expected = multigraph_scaling.exponent(result, BEST, "graphs")
    assert exponents["graphs"][BEST]["exponent"] == expected.exponent
    assert exponents["graphs"][BEST]["sizes"] == [3, 4, 6]
    assert set(content["barycenter_faster_from"]) == set(METHODS) - {BARYCENTER}
    assert content["answers"] == multigraph_scaling.answers(result)
    assert at_once == [MultiGraphStudy()]


def test_writes_the_report(capsys: pytest.CaptureFixture, at_once: list[MultiGraphStudy], tmp_path: Path):
    folder = tmp_path / "new" / "report"
    assert cli.main(["bench", "multigraph", "--output", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["multigraph.json", "multigraph.md", "multigraph.png"]
    text = (folder / "multigraph.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.rstrip("\n") in text
    assert "(multigraph.png)" in text
    assert json.loads((folder / "multigraph.json").read_text(encoding="utf-8"))["rows"]
    picture = (folder / "multigraph.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert cli.main(["bench", "multigraph", "--output", str(folder)]) == 0
    assert (folder / "multigraph.png").read_bytes() == picture


def complaint(capsys: pytest.CaptureFixture) -> str:
    """The one line on standard error; nothing is on standard output."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("graphmatch: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_refuses_an_output_that_is_no_folder(
    capsys: pytest.CaptureFixture, at_once: list[MultiGraphStudy], tmp_path: Path
):
    (tmp_path / "file").write_text("")
    assert cli.main(["bench", "multigraph", "--output", str(tmp_path / "file")]) == 2
    assert "--output must name a folder" in complaint(capsys)
    # Nobody may write there, not even root.
    assert cli.main(["bench", "multigraph", "--output", "/proc/graphmatch"]) == 2
    assert "/proc/graphmatch" in complaint(capsys)
    assert at_once == [], "nothing is measured in vain"


def test_an_old_report_outlives_a_failure(
    capsys: pytest.CaptureFixture, at_once: list[MultiGraphStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "multigraph.md").write_text("old")

    def broken(result: StudyResult) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multigraph_report, "as_png", broken)
    assert cli.main(["bench", "multigraph", "--output", str(tmp_path)]) == 2
    assert "No space left" in complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["multigraph.md"]
    assert (tmp_path / "multigraph.md").read_text() == "old"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--graphs", "2", "4"], "graphs must be one or more growing numbers of at least 3"),
        (["--graphs", "8", "4"], "graphs must be"),
        (["--nodes", "1"], "nodes must be one or more growing numbers of at least 2"),
        (["--nodes", "8", "8"], "nodes must be"),
        (["--repetitions", "0"], "repetitions must be at least 1"),
        (["--noise", "-0.5"], "noise must be finite and at least 0"),
        (["--noise", "nan"], "noise must be"),
        (["--noise", "inf"], "noise must be"),
        (["--seed", "-1"], "seed must be in [0, 2^32)"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--seconds", "0"], "seconds must be positive"),
        (["--seconds", "nan"], "seconds must be"),
        (["--memory", "0"], "memory must be"),
        (["--memory", "inf"], "memory must be"),
        (["--memory", "nan"], "memory must be"),
    ],
    ids=str,
)
def test_refuses_wrong_numbers(
    options: list[str], words: str, capsys: pytest.CaptureFixture, at_once: list[MultiGraphStudy]
):
    assert cli.main(["bench", "multigraph", *options]) == 2
    assert words in complaint(capsys)
    assert at_once == []


@pytest.mark.parametrize("options", [["--graphs"], ["--nodes", "x"], ["--rep", "3"], ["--noise", "low"]], ids=str)
def test_wrong_usage(options: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "multigraph", *options])
    assert stopped.value.code == 2
    assert "usage: graphmatch" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["bench", "--help"], ["bench", "multigraph", "--help"]], ids=str)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    assert "multigraph" in capsys.readouterr().out


def test_an_interrupt_ends_quietly(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(study: MultiGraphStudy, progress: Any) -> StudyResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(multigraph, "run_multigraph_study", interrupted)
    assert cli.main(["bench", "multigraph", "--output", str(tmp_path)]) == 130
    assert "interrupted" in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quiet", [True, False])
def test_a_bar_shows_progress_on_terminals(quiet: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    options = ["--graphs", "3", "4", "--nodes", "4", "--repetitions", "1", *(["--quiet"] if quiet else [])]
    assert cli.main(["bench", "multigraph", *options]) == 0
    shown = capsys.readouterr().err
    assert ("m = 4, n = 4: Best(), problem 1" in shown) != quiet
    if not quiet:
        shares = [int(part.split("]")[1].split("%")[0]) for part in shown.split("[") if "]" in part and "%" in part]
        assert shares == sorted(shares)
        assert shares[0] == 0
        assert 90 <= shares[-1] <= 100
        assert shown.endswith("\r\x1b[K")


def test_the_bar_fills():
    assert multigraph.bar(0) == "[....................]   0 %"
    assert multigraph.bar(0.5) == "[##########..........]  50 %"
    assert multigraph.bar(1) == "[####################] 100 %"
