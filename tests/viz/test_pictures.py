"""What all pictures share: files, formats, layouts, and graphmatch without matplotlib."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

import graphmatch as gm
from graphmatch import viz
from graphmatch.viz import theme as themes

PATH = np.array([[0, 1], [1, 2], [2, 3]])


@pytest.fixture
def figure():
    return viz.draw_costs(torch.tensor([[4.0, 1.0], [2.0, 3.0]]), [1, 0])


@pytest.mark.parametrize(
    "style",
    [
        {"savefig.facecolor": "black"},
        {"savefig.transparent": True},
        {"savefig.bbox": "tight"},
        {"image.origin": "lower"},
        {"image.aspect": "auto"},
    ],
    ids=str,
)
def test_a_style_of_the_user_leaves_the_picture_what_it_is(figure, tmp_path: Path, style: dict):
    content = viz.save_figure(figure, tmp_path / "a.png").read_bytes()
    before = dict(mpl.rcParams)
    with mpl.rc_context(style):
        again = viz.draw_costs(torch.tensor([[4.0, 1.0], [2.0, 3.0]]), [1, 0])
        assert viz.save_figure(again, tmp_path / "b.png").read_bytes() == content
        image = np.zeros((4, 4))
        graph = gm.Graph(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), torch.tensor([[0, 1]]))
        assert viz.draw_matching([0, 1], (graph, graph), images=(image, image)).axes[0].images[0].origin == "upper"
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("suffix", "beginning"),
    [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".webp", b"RIFF"), (".jpg", b"\xff\xd8")],
)
def test_every_format_is_written_with_the_same_bytes(figure, tmp_path: Path, suffix: str, beginning: bytes):
    again = viz.draw_costs(torch.tensor([[4.0, 1.0], [2.0, 3.0]]), [1, 0])
    first, second = (
        viz.save_figure(each, tmp_path / f"{name}{suffix}") for name, each in {"a": figure, "b": again}.items()
    )
    content = first.read_bytes()
    assert content.startswith(beginning)
    assert content == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"], "nothing is left over"


@pytest.mark.parametrize(("name", "hint"), [("a.pgn", "Did you mean .png?"), ("a", "Pick one."), ("a.tiff", "")])
def test_other_formats_are_refused(figure, tmp_path: Path, name: str, hint: str):
    with pytest.raises(ValueError, match=r"^save_figure: path must end with \.png, \.svg, \.pdf, \.webp or \.jpg; got"):
        viz.save_figure(figure, tmp_path / name)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        viz.save_figure(figure, tmp_path / name)
    assert str(refused.value).endswith(hint)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_when_writing_fails(figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        viz.save_figure(figure, path)
    assert path.read_bytes() == b"old"
    with pytest.raises(TypeError, match="path must be a file name"):
        viz.save_figure(figure, 3)


def test_a_folder_that_is_not_there_is_no_hidden_file(figure, tmp_path: Path):
    path = tmp_path / "absent" / "a.png"
    with pytest.raises(FileNotFoundError) as caught:
        viz.save_figure(figure, path)
    assert caught.value.filename == str(path)


def test_texts_of_users_are_no_formulas(tmp_path: Path):
    text = r"$\no formula$"  # matplotlib fails where it reads one
    costs = torch.tensor([[4.0, 1.0], [2.0, 3.0]])
    record = viz.Convergence(text, "effort", (1.0,), (0.1,), (3,), (2.0,), (1.0,), True)
    own = viz.draw_costs(costs, [1, 0]).axes[0]
    problem = gm.KoopmansBeckmannProblem(costs[None], costs[None])
    graphs = [gm.Graph(torch.eye(2), torch.tensor([[0, 1]]))] * 2
    several = gm.solve_multigraph(gm.MultiGraphProblem.from_graphs(graphs))
    for figure in (
        viz.draw_costs(costs, [1, 0], title=text),
        viz.draw_costs(problem, [1, 0], title=text),
        viz.draw_matching([1, 0], graphs, title=text),
        viz.draw_matching([1, 0], graphs, title=text, axes=own),
        viz.draw_universe(several, graphs, title=text),
        viz.draw_convergence(record),
        viz.draw_convergence([record, record], title=text),
    ):
        viz.save_figure(figure, tmp_path / "a.png")
    frame = viz.AlignmentFrame(0, torch.eye(2), torch.eye(2), torch.arange(2))
    viz.animate_alignment([frame], tmp_path / "a.gif", names=(text, text), title=text)


def test_figures_need_no_display_and_no_pyplot(tmp_path: Path):
    code = (
        "import sys, torch, graphmatch as gm\n"
        "figure = gm.viz.draw_costs(torch.eye(2), [1, 0])\n"
        "gm.viz.save_figure(figure, sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True, env=without_display())
    assert (tmp_path / "a.png").stat().st_size > 1000


def without_display() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}


def test_notebooks_show_figures(figure):
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_graphmatch_works_and_says_how_to_get_it():
    code = (
        "import sys, torch\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'matplotlib':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
        "import graphmatch as gm\n"
        "assert gm.solve(gm.LinearProblem(torch.eye(2)[None])).objective == 0\n"
        "record = gm.viz.record_convergence(gm.LawlerProblem(torch.eye(2)[None], torch.zeros(1, 0, 0), "
        "torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64)))\n"
        "for draw in (lambda: gm.viz.draw_costs(torch.eye(2), [1, 0]), lambda: gm.viz.draw_convergence(record)):\n"
        "    try:\n"
        "        draw()\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    first, second = printed.splitlines()
    assert first.startswith("draw_costs: matplotlib must be installed to draw; got none.")
    assert 'pip install "graphmatch[viz]"' in first
    assert second.startswith("draw_convergence: matplotlib must be installed")


def test_a_theme_of_ones_own(tmp_path: Path):
    from dataclasses import replace

    clear = replace(viz.LIGHT, page="none")
    figure = viz.draw_costs(torch.eye(2), [1, 0], theme=clear)
    from PIL import Image

    image = Image.open(viz.save_figure(figure, tmp_path / "clear.png"))
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0))[3] == 0


def test_texts_of_both_themes_are_legible():
    """Contrast by the formula of WCAG 2: 7 for texts, 3 for what has to be told from the page."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    def contrast(first: str, second: str) -> float:
        light, dark = sorted((luminance(first), luminance(second)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for theme in themes.THEMES.values():
        assert contrast(theme.text, theme.page) > 7
        for colour in (theme.right, theme.wrong, theme.third):
            assert contrast(colour, theme.page) > 3
        assert contrast(theme.faint, theme.page) > 2
        # Node numbers are written in the colour of the page.
        assert all(contrast(colour, theme.page) > 2 for colour in theme.elements)
        low, *_, high = themes.cost_colours(theme, np.array([0.0, 1.0])).to_rgba([0.0, 0.5, 1.0])
        for colour in (low, high):
            text = "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])
            assert contrast(text, theme.page) > 1.9, theme.page


def test_layout_shows_distances_along_edges():
    places = viz.layout_graph(4, PATH)
    assert places.shape == (4, 2)
    assert places.min() >= -1e-9
    assert places.max() <= 1 + 1e-9
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert np.allclose(steps, steps[0], rtol=1e-2)
    assert np.linalg.norm(places[0] - places[3]) == pytest.approx(3 * steps[0], rel=1e-2)
    assert np.array_equal(places, viz.layout_graph(4, PATH[:, ::-1]))


def test_layout_of_a_grid_is_a_grid():
    edges = [(5 * i + j, 5 * i + j + 1) for i in range(5) for j in range(4)]
    edges += [(5 * i + j, 5 * (i + 1) + j) for i in range(4) for j in range(5)]
    places = viz.layout_graph(25, np.array(edges))
    length = np.array([np.linalg.norm(places[a] - places[b]) for a, b in edges])
    assert length.std() < 0.15 * length.mean()
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(25)
    assert gaps.min() > 0.5 * length.mean(), "nothing lies on something else"


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        (0, []),
        (1, []),
        (2, [(0, 1)]),
        (5, []),
        (5, [(0, 0)]),
        (6, [(0, 1), (2, 3), (4, 5)]),
        (5, [(i, j) for i in range(5) for j in range(i)]),
        (40, [(0, i) for i in range(1, 40)]),
        (3000, [(0, 1)]),
    ],
    ids=["empty", "one", "two", "no edges", "a loop", "three parts", "complete", "star", "huge"],
)
def test_layout_of_any_graph(nodes: int, edges: list):
    places = viz.layout_graph(nodes, np.array(edges, dtype=np.int64))
    assert places.shape == (nodes, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(places.round(6), axis=0)) == nodes, "every node has a place of its own"
    if nodes:
        assert -1e-9 <= places.min() <= places.max() <= 1 + 1e-9


def test_public_names_exist():
    assert [name for name in viz.__all__ if not hasattr(viz, name)] == []
    assert gm.viz is viz
