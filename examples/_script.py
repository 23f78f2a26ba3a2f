"""How the examples start, and how their pictures are framed: what they teach stands in the other files."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graphmatch import viz
from graphmatch.command_line import Parser

THEMES = {"light": viz.LIGHT, "dark": viz.DARK}
SUFFIXES = (".png", ".svg", ".pdf", ".webp", ".jpg")


def run(main: Callable[..., None]) -> None:
    """Reads --output, --seed and --theme, and calls `main` with them; what cannot be drawn is said in one sentence."""
    script = sys.modules[main.__module__]
    name = Path(str(script.__file__)).stem
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=f"python examples/{name}.py", description=script.__doc__, formatter_class=style)
    default = Path("build", "examples", f"{name}.png")
    parser.add_argument("--output", type=_picture, default=default, metavar="FILE", help=f"the picture ({default})")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument("--theme", choices=list(THEMES), default="light", help="of the picture (light)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # problems this small gain nothing from more
    try:
        _try_to_draw(options.output)
        main(**vars(options))
    except (ImportError, OSError) as problem:
        parser.exit(1, f"{parser.prog}: {problem}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\n")
    print(f"picture: {options.output}")


def _picture(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; got '{name}'.")
    return path


def _try_to_draw(output: Path) -> None:
    """Finds out before the work, not after it, whether matplotlib is there and the picture can be written."""
    figure = viz.draw_costs(torch.zeros(1, 1), [0])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent) as folder:
            viz.save_figure(figure, Path(folder) / output.name)
    except OSError as problem:
        rule = "--output must lie in a folder to write to"
        raise OSError(f"{rule}; got {output} ({problem.strerror}). Choose another folder.") from problem


def panels(theme: str, width: float, height: float, mosaic: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a figure and its axes by the letters of a mosaic.

    Args:
        theme: "light" or "dark".
        width: Inches.
        height: Inches.
        mosaic: For instance "AB;CC": two axes side by side, a wide one below.
        options: Of matplotlib's `Figure.subplot_mosaic`, such as `width_ratios`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=THEMES[theme].page)
    axes = figure.subplot_mosaic(mosaic, **options)
    for each in axes.values():
        each.set_facecolor(THEMES[theme].page)
    return figure, axes


def label_curves(axes: Any, theme: str, x: str, y: str, title: str = "") -> None:
    """Gives axes with curves the theme's colours, names for x and y, and a legend if its curves have names."""
    style = THEMES[theme]
    axes.set_xlabel(x, color=style.text, fontsize=13)
    axes.set_ylabel(y, color=style.text, fontsize=13)
    axes.set_title(title, color=style.text, fontsize=14)
    axes.tick_params(colors=style.text, which="both", labelsize=12)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(style.faint)
    axes.grid(True, color=style.faint, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=12, labelcolor=style.text)


def hide_frame(axes: Any, theme: str, title: str = "") -> None:
    """Gives axes for points or images a title in the theme's colours, and takes lines and ticks away."""
    axes.set_title(title, color=THEMES[theme].text, fontsize=14)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
