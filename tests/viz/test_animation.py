"""Alignment over training as an animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graphmatch import viz
from graphmatch.viz.animation import _Drawing, _projected


def training(steps: int, samples: int = 6, dim: int = 5) -> list[viz.AlignmentFrame]:
    """Views that come together: from all wrong to all right."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, samples, dim, generator=generator)
    frames = []
    for step in range(steps):
        share = step / max(steps - 1, 1)
        right = round(samples * share)
        assignment = torch.arange(samples)
        assignment[right:] = assignment[right:].roll(1) if samples - right > 1 else -1
        frames.append(viz.AlignmentFrame(10 * step, first, (1 - share) * second + share * first, assignment))
    return frames


@pytest.mark.parametrize(("suffix", "kind"), [(".gif", "GIF"), (".webp", "WEBP"), (".png", "PNG")])
def test_every_frame_is_written(tmp_path: Path, suffix: str, kind: str):
    path = viz.animate_alignment(training(3), tmp_path / f"a{suffix}", seconds_per_frame=0.1)
    image = Image.open(path)
    assert (image.format, image.n_frames) == (kind, 3)
    durations, pictures = [], []
    for place in range(3):
        image.seek(place)
        image.load()
        durations.append(image.info["duration"])
        pictures.append(np.asarray(image.convert("RGB")))
    assert durations == [100, 100, 400]
    assert image.info["loop"] == 0
    assert not np.array_equal(pictures[0], pictures[2])
    assert tuple(pictures[0][0, 0]) == tuple(pictures[2][0, 0]) == (255, 255, 255), "the page, exactly"
    assert [each.name for each in tmp_path.iterdir()] == [f"a{suffix}"]


def test_the_same_frames_give_the_same_bytes(tmp_path: Path):
    first, second = (viz.animate_alignment(training(2), tmp_path / name) for name in ("a.gif", "b.gif"))
    assert first.read_bytes() == second.read_bytes()


def test_frames_show_matches_and_accuracy():
    frames = training(3)
    assert [frame.accuracy for frame in frames] == [0.0, 0.5, 1.0]
    drawing = _Drawing(frames, ("image", "text"), "together", viz.DARK)
    drawing.picture(1)
    right, wrong = drawing.points.collections[:2]
    assert (len(right.get_segments()), len(wrong.get_segments())) == (3, 3)
    assert drawing.points.get_title() == "step 10: 50 % right"
    assert [text.get_text() for text in drawing.points.get_legend().get_texts()] == ["image", "text"]
    assert drawing.curve.lines[1].get_xydata().tolist() == [[0, 0], [10, 50]]
    assert drawing.curve.lines[0].get_xydata().tolist() == [[0, 0], [10, 50], [20, 100]]
    limits = drawing.points.get_xlim()
    drawing.picture(2)
    assert drawing.points.get_xlim() == limits, "the view does not move"


def test_projections_share_their_axes():
    frames = training(3)
    places = _projected(frames)
    assert np.allclose(places[0][0], places[2][0]), "what does not move stands still"
    distance = [np.linalg.norm(first - second) for first, second in places]
    assert distance[0] > distance[1] > distance[2] == pytest.approx(0, abs=1e-6)
    flat = [
        viz.AlignmentFrame(0, torch.eye(3)[:, :width], torch.eye(3)[:, :width], torch.arange(3)) for width in (1, 2)
    ]
    for frame in flat:
        assert _projected([frame])[0][0].shape == (3, 2)


def test_a_frame_of_views_is_solved():
    generator = torch.Generator().manual_seed(1)
    view = torch.randn(8, 4, generator=generator, requires_grad=True)
    frame = viz.AlignmentFrame.of_views(5, view, view + 0.01, k=3)
    assert frame.accuracy == 1.0
    assert not frame.first.requires_grad


def test_frames_keep_what_they_were_made_of():
    weights = torch.zeros(3, 2)
    frame = viz.AlignmentFrame(0, weights, weights, torch.arange(3))
    weights += 1
    assert frame.first.eq(0).all()


def test_many_samples_show_some_matches():
    drawing = _Drawing(training(2, samples=300), ("a", "b"), None, viz.LIGHT)
    assert sum(len(lines.get_segments()) for lines in drawing.points.collections[:2]) == 200


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"path": "a.mp4"}, r"path must end with \.gif, \.webp or \.png; got 'a\.mp4'"),
        ({"path": "a.gfi"}, r"Did you mean \.gif\?"),
        ({"frames": []}, "frames must be one or more frames; got none"),
        ({"frames": [3]}, "frames must be one or more frames; got int 3"),
        ({"frames": [*training(1), *training(1, samples=4)]}, "frames must hold the same samples"),
        ({"seconds_per_frame": 0.0}, "seconds_per_frame must lie in"),
        ({"names": ("a",)}, "names must be two; got 1"),
        ({"theme": "night"}, "theme must be a Theme or one of 'light', 'dark'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    options = {"frames": training(2), "path": "a.gif"} | arguments
    with pytest.raises(ValueError, match=f"^animate_alignment: .*{text}"):
        viz.animate_alignment(options.pop("frames"), options.pop("path"), **options)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_checked():
    points = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"^AlignmentFrame: second must have shape \(3, 2\)"):
        viz.AlignmentFrame(0, points, points[:2], torch.arange(3))
    with pytest.raises(TypeError, match=r"^AlignmentFrame: assignment must be an int64 tensor"):
        viz.AlignmentFrame(0, points, points, torch.zeros(3))
    for wrong in (3, -2):
        with pytest.raises(
            ValueError, match=rf"^AlignmentFrame: assignment must hold samples in \[0, 3\), or -1; got {wrong}"
        ):
            viz.AlignmentFrame(0, points, points, torch.tensor([0, wrong, 1]))
    for broken in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"^AlignmentFrame: second must hold finite features; got others"):
            viz.AlignmentFrame(0, points, points + broken, torch.arange(3))
