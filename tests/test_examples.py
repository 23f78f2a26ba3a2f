"""The examples: each runs as a newcomer would start it, draws its picture, and finds what it says it finds."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
GALLERY = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
QUICK = FOLDER / "match_drawings.py"
LONGEST_SCRIPT = 150
LARGEST_PICTURE = 120_000
# What each example prints as true; an example without a line here fails.
TRUTHS = {
    "align_any_model": {"all above ten times chance"},
    "align_views": {"training aligned the views"},
    "learn_keypoints": {"training helped"},
    "match_drawings": {"certified optimal", "planted matching recovered"},
    "match_many_graphs": {"consistent now, and not before", "more matches are right"},
    "own_solver": {"gradient check passed", "training helped", "the order helped"},
    "switch_from_scipy": {"linear assignments cost the same", "graphmatch never finds worse"},
}
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def start(script: Path, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder, as `python examples/NAME.py` does."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def check_picture(path: Path) -> None:
    """Fails where a picture is tiny, huge or blank."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    assert 700 <= width <= 1600
    assert 300 <= height <= 1200
    drawn = (abs(pixels - pixels[0, 0]) > 24).any(2).mean()  # pages are not quite even where pictures are compressed
    assert 0.02 < drawn < 0.9, f"{drawn:.1%} of {path.name} are drawn"


def test_no_example_is_forgotten():
    assert {script.stem for script in SCRIPTS} == set(TRUTHS)


@every_script
def test_an_example_finds_what_it_says_and_draws_it(script: Path, tmp_path: Path):
    done = start(script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    verdicts = dict(re.findall(r"^([^:\n]+): (True|False)$", done.stdout, re.M))
    assert verdicts == dict.fromkeys(TRUTHS[script.stem], "True"), done.stdout
    picture = tmp_path / "build" / "examples" / f"{script.stem}.png"
    assert done.stdout.splitlines()[-1] == f"picture: {picture.relative_to(tmp_path)}"
    check_picture(picture)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [f"build/examples/{script.stem}.png"]


@every_script
def test_an_example_is_a_short_tutorial(script: Path):
    text = script.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= LONGEST_SCRIPT
    opening = ast.get_docstring(tree) or ""
    assert len(opening.splitlines()) >= 4
    assert "You learn" in opening
    assert "The script prints" in opening
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert ast.unparse(main.args) == "output: Path, seed: int=0, theme: str='light'"
    # The options, and how they are refused, are then those of the example that is tested below.
    assert text.endswith('\n\n\nif __name__ == "__main__":\n    run(main)\n')


def test_a_seed_determines_the_picture(tmp_path: Path):
    first, again, other, dark = (
        start(QUICK, "--output", f"{name}.png", *options, folder=tmp_path)
        for name, options in {
            "first": [],
            "again": ["--seed", "0"],
            "other": ["--seed", "1"],
            "dark": ["--theme", "dark"],
        }.items()
    )
    assert {each.returncode for each in (first, again, other, dark)} == {0}
    content = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("first", "again", "other", "dark")}
    assert content["first"] == content["again"]
    assert len(set(content.values())) == 3
    assert other.stdout.splitlines()[:-1] != first.stdout.splitlines()[:-1]
    assert dark.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sede", "1"], "Did you mean --seed?"),
        (["--theme", "drak"], "Did you mean dark?"),
        (["--seed", "one"], "invalid int value: 'one'"),
        (["--output", "picture.tiff"], "must end with .png, .svg, .pdf, .webp or .jpg; got 'picture.tiff'"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], message: str, tmp_path: Path):
    done = start(QUICK, *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_the_example_is_about(tmp_path: Path):
    done = start(QUICK, "--help", folder=tmp_path)
    assert done.returncode == 0
    text = ast.get_docstring(ast.parse(QUICK.read_text(encoding="utf-8"))) or "nothing"
    assert " ".join(text.split()) in " ".join(done.stdout.split())  # lines are wrapped to the window
    assert done.stdout.startswith(f"usage: python examples/{QUICK.name} [-h] [--output FILE]")


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    done = start(QUICK, "--output", "file/picture.png", folder=tmp_path)
    check_refusal(done)
    assert "--output must lie in a folder to write to; got file/picture.png" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def changed(folder: Path, code: str) -> dict[str, str]:
    """Returns the environment of a Python that runs some code before anything else."""
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    environment = {}
    if os.geteuid() == 0:  # root may write anywhere
        environment = changed(
            tmp_path,
            "import os\n"
            "make = os.mkdir\n"
            "def mkdir(path, *rest, **options):\n"
            "    if 'locked' in os.fspath(path):\n"
            "        raise PermissionError(13, 'Permission denied')\n"
            "    make(path, *rest, **options)\n"
            "os.mkdir = mkdir\n",
        )
    done = start(QUICK, "--output", "locked/picture.png", folder=tmp_path, **environment)
    check_refusal(done)
    assert "got locked/picture.png (Permission denied). Choose another folder." in done.stderr
    assert list(folder.iterdir()) == []


def test_without_matplotlib_one_sentence_says_so(tmp_path: Path):
    code = (
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
    )
    done = start(QUICK, folder=tmp_path, **changed(tmp_path, code))
    check_refusal(done)
    assert 'pip install "graphmatch[viz]"' in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name == "build"] == []


def check_refusal(done: subprocess.CompletedProcess[str]) -> None:
    """Fails unless a script said in one line why it did nothing."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"python examples/\w+\.py: [^\n]+\n", done.stderr), done.stderr


@every_script
def test_an_example_is_shown_in_the_gallery_and_in_the_folder(script: Path):
    gallery, readme = (path.read_text(encoding="utf-8") for path in (GALLERY, FOLDER / "README.md"))
    assert f"](images/gallery/{script.stem}.webp)" in gallery
    assert f"](../examples/{script.name})" in gallery
    assert f"python examples/{script.name}" in gallery
    assert f"[{script.name}]({script.name})" in readme
    assert f'src="../docs/images/gallery/{script.stem}.webp"' in readme
    for name in (f"{script.stem}.webp", f"{script.stem}-dark.webp"):
        assert (PICTURES / name).stat().st_size < LARGEST_PICTURE
        check_picture(PICTURES / name)


def test_the_gallery_shows_nothing_but_examples():
    expected = {f"{script.stem}{suffix}.webp" for script in SCRIPTS for suffix in ("", "-dark")}
    assert {path.name for path in PICTURES.iterdir()} == expected
    shown = set(re.findall(r"images/gallery/(\w+)\.webp", GALLERY.read_text(encoding="utf-8")))
    shown |= set(re.findall(r"images/gallery/(\w+)\.webp", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert shown == {script.stem for script in SCRIPTS}
