"""The list of seeded bugs fits the sources and the tests as they are, and what tries them tells caught from missed.

`make mutants` tries them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import run
from .run import BEGIN, END, ROOT, SECONDS_PER_TEST, Bug, Trial, Workplace, read_bugs, table

BUGS = read_bugs()
AREAS = {"solver", "bound", "gradient", "mask", "metric"}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_the_sources_and_the_tests(bug: Bug):
    assert bug.problem(ROOT) is None
    assert bug.new != bug.old
    # Python's and setuptools' parts are not compiled again when a header changes.
    assert Path(bug.file).suffix in (".py", ".cpp")
    for test in bug.tests:
        file, _, name = test.partition("::")
        assert file.startswith("tests/")
        assert (ROOT / file).is_file()
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), test


def test_names_are_distinct_and_areas_covered():
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert len({(bug.file, bug.old, bug.new) for bug in BUGS}) == len(BUGS)
    assert {bug.area for bug in BUGS} >= AREAS


def test_the_readme_lists_them_all_as_caught():
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .* \| (.+?) \|$", page[page.index(BEGIN) : page.index(END)], re.M)
    caught = {name for name, by in rows if re.fullmatch(r"`\w+\.py::\w+[^`]*`", by)}
    assert caught == {bug.name for bug in BUGS}, "run `make mutants`, which writes the table"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A project of one file and two tests instead of this one."""
    project = tmp_path / "project"
    (project / "tests").mkdir(parents=True)
    (project / "pyproject.toml").write_text("")
    (project / "source.py").write_text("def double(number):\n    return 2 * number\n")
    test = "import sys; sys.path.insert(0, '.')\nimport os, time, source\n"
    (project / "tests" / "test_value.py").write_text(f"{test}def test_it():\n    assert source.double(2) == 4\n")
    (project / "tests" / "test_type.py").write_text(f"{test}def test_it():\n    assert type(source.double(2)) is int\n")
    monkeypatch.setattr(run, "ROOT", project)
    monkeypatch.setattr(run, "SOURCES", ("tests", "source.py", "pyproject.toml"))
    monkeypatch.setattr(run, "BUILD", "")
    made = Workplace(tmp_path / "work")
    made.prepare()
    return made


def bug(new: str, test: str, old: str = "2 * number") -> Bug:
    return Bug("wrong", "solver", "source.py", "everything", old, new, (f"tests/test_{test}.py",))


@pytest.mark.parametrize(
    ("new", "test", "outcome", "by"),
    [
        ("3 * number", "value", "caught", "tests/test_value.py::test_it"),
        ("3 * number", "type", "survived", ""),
        ("__import__('os')._exit(3)", "value", "broken", "tests do not run"),
        ("__import__('os').kill(0, 9)", "value", "caught", "tests/test_value.py::test_it (does not end, or crashes)"),
        ("2 * (number", "value", "broken", "tests do not run"),
    ],
)
def test_outcomes(place: Workplace, new: str, test: str, outcome: str, by: str):
    trial = place.attempt(bug(new, test))
    assert trial.outcome == outcome
    assert trial.by.startswith(by)
    assert bug("", test).problem(place.tree) is None, "the source is as it was"


def test_a_round_in_circles_is_caught(place: Workplace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "SECONDS_PER_TEST", 1)
    trial = place.attempt(bug("[None for _ in iter(int, 1)]", "value"))
    assert SECONDS_PER_TEST > 1
    assert (trial.outcome, trial.by) == ("caught", "tests/test_value.py::test_it (does not end, or crashes)")


def test_what_is_done_is_not_done_again(place: Workplace, monkeypatch: pytest.MonkeyPatch):
    first = [place.unchanged(["tests/test_value.py"]), place.attempt(bug("3 * number", "value"))]
    assert [trial.outcome for trial in first] == ["survived", "caught"]
    with place.journal.open("a") as journal:
        journal.write('{"key": "torn')
    again = Workplace(place.folder)
    monkeypatch.setattr(Workplace, "_run", lambda *_: pytest.fail("nothing is left to do"))
    again.prepare()
    assert [again.unchanged(["tests/test_value.py"]), again.attempt(bug("3 * number", "value"))] == first
    # Other sources make it new work.
    (run.ROOT / "source.py").write_text("def double(number):\n    return number + number\n")
    changed = Workplace(place.folder)
    changed.prepare()
    assert changed.key("", []) != again.key("", [])
    assert (changed.tree / "source.py").read_text() == (run.ROOT / "source.py").read_text()


def test_texts_that_are_gone_or_not_alone_are_named(place: Workplace):
    assert bug("", "value", "3 * number").problem(place.tree) == (
        "its text must occur once in source.py; it occurs 0 times"
    )
    assert "it occurs 2 times" in str(bug("", "value", "number").problem(place.tree))


def test_the_table_shows_survivors():
    bugs = [bug("", "value"), bug("", "type")]
    text = table(bugs, [Trial("", "caught", "tests/a/test_value.py::test_it[1-2]"), Trial("", "survived", "")])
    assert text.startswith("1 of 2 seeded bugs are caught:")
    assert text.splitlines()[-2:] == [
        "| wrong | solver | `source.py` | everything | `test_value.py::test_it` |",
        "| wrong | solver | `source.py` | everything | **survived** |",
    ]


def test_the_table_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "README", tmp_path / "README.md")
    run.README.write_text(f"# Before\n{BEGIN}\nold\n{END}\n# After\n")
    run.write_readme("new")
    assert run.README.read_text() == f"# Before\n{BEGIN}\nnew\n{END}\n# After\n"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
