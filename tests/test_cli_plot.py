"""`graphmatch solve --plot`: which picture a file gets, and what is refused before anything is solved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import same_color

import graphmatch as gm
from graphmatch import cli, viz
from graphmatch.cli import pictures

FILES = {
    "two.dd": "p 2 2 4 1\na 0 0 0 -1\na 1 0 1 -2\na 2 1 0 -0.5\na 3 1 1 -1\ne 1 2 -3\n",
    "three.dd": "".join(f"gm {i} {j}\np 1 1 1 0\na 0 0 0 {i - j}\n" for i, j in [(0, 1), (0, 2), (1, 2)]),
    "dense.dat": "3\n0 3 1\n3 0 0\n1 0 0\n0 2 5\n2 0 1\n5 1 0\n",
    "infeasible.dd": "p 2 2 1 0\na 0 0 0 1\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are written."""
    figures: list[Any] = []
    save = pictures.save_figure
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    return figures


@pytest.mark.parametrize(
    ("name", "title", "axes"),
    [
        ("two.dd", "cost -5.5, gap", 1),
        ("three.dd", "cost -4, gap < 0.01 %, universe of 1", 4),
        ("dense.dat", "cost 10", 4),
    ],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_kind_of_file_gets_its_picture(
    folder: Path, drawn: list[Any], name: str, title: str, axes: int, theme: str, capsys: pytest.CaptureFixture
):
    options = [] if theme == "light" else ["--theme", theme]
    assert cli.main(["solve", name, "--plot", "out.png", *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert any(line.split() == ["picture", "out.png"] for line in printed.out.splitlines())
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    [figure] = drawn
    assert len(figure.axes) == axes
    shown = [figure._suptitle.get_text()] if figure._suptitle else [figure.axes[0].get_title()]
    assert shown[0].startswith(title)
    style = {"light": viz.LIGHT, "dark": viz.DARK}[theme]
    assert same_color(figure.get_facecolor(), style.page)


def test_programs_get_the_name_of_the_picture(folder: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["solve", "two.dd", "--plot", "out.svg", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == "out.svg"
    assert cli.main(["solve", "two.dd", "--json"]) == 0
    assert "picture" not in json.loads(capsys.readouterr().out)


def test_an_old_picture_stays_if_there_is_no_matching(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    (folder / "out.png").write_bytes(b"old")
    problem = gm.io.read_dd("infeasible.dd")
    complete = gm.LawlerProblem(problem.unary_costs, problem.quadratic_costs, problem.edges1, problem.edges2)
    assert gm.solve(complete).statuses == [gm.Status.INFEASIBLE]
    monkeypatch.setattr("graphmatch.cli.solve.read_dd", lambda file: complete)
    assert cli.main(["solve", "infeasible.dd", "--plot", "out.png"]) == 1
    assert "none: there is no valid matching" in capsys.readouterr().out
    assert (folder / "out.png").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--plot", "out.bmp"], "solve: --plot must end with .png, .svg, .pdf, .webp or .jpg; got 'out.bmp'"),
        (["--plot", "out"], "solve: --plot must end with"),
        (["--plot", "absent/out.png"], "solve: --plot must lie in a folder to write to"),
        (["--plot", "folder.png"], "solve: --plot must name a new or a regular file"),
        (["--theme", "dark"], "solve: --theme must come with --plot; got dark"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused_before_solving(
    folder: Path, options: list[str], text: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    (folder / "folder.png").mkdir()
    monkeypatch.setattr(gm, "solve", lambda *_: pytest.fail("it was solved"))
    before = sorted(path.name for path in folder.iterdir())
    assert cli.main(["solve", "two.dd", *options]) == 2
    assert text in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_without_matplotlib_nothing_is_solved(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from graphmatch.viz import theme

    find = theme.importlib.util.find_spec
    monkeypatch.setattr(
        theme.importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    monkeypatch.setattr(gm, "solve", lambda *_: pytest.fail("it was solved"))
    assert cli.main(["solve", "two.dd", "--plot", "out.png"]) == 2
    assert 'pip install "graphmatch[viz]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "graph_matching_dd/car_motor/car1.dd.xz",
        "graph_matching_dd/car_motor/motor1.dd.xz",
        "graph_matching_dd/mgm/minimal_synchronization_example.dd",
        "qaplib/nug12.dat",
    ],
)
def test_published_instances(name: str, data_folder: Path, tmp_path: Path):
    output = tmp_path / "out.png"
    effort = [] if "mgm" in name else ["--effort", "0.1"]
    assert cli.main(["solve", str(data_folder / name), *effort, "--plot", str(output), "--quiet"]) == 0
    from PIL import Image

    image = Image.open(output).convert("L")
    colours = image.getextrema()
    assert image.width >= 800
    assert colours[0] < 80 < 250 < colours[1], "ink on a light page"
