"""What all pictures share: colours for light and dark pages, figures without a display, files that are complete."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmatch import _check
from graphmatch.io.files import as_path, write_bytes

PICTURE_SUFFIXES = (".png", ".svg", ".pdf", ".webp", ".jpg")
_RESOLUTION = 110  # dots per inch
_LARGEST_SHARE = 1e3
# Styles of the user would give a file other colours, or another size, than its figure.
_AS_DRAWN = {
    "savefig.facecolor": "auto",
    "savefig.edgecolor": "auto",
    "savefig.transparent": False,
    "savefig.bbox": None,
}
# Formats that hold the time of writing, unless told otherwise: the same picture is to give the same bytes.
_UNDATED: dict[str, dict[str, Any]] = {
    ".png": {"metadata": {"Software": None}},
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
}


@dataclass(frozen=True)
class Theme:
    """Colours of a page, told apart by colour-blind readers: those of Okabe and Ito where there is a choice.

    Attributes:
        page: Background.
        text: Titles, labels, nodes without costs.
        faint: What matters little: edges that cost nothing, grids.
        right: Matches that agree with the target.
        wrong: Matches that do not.
        third: A further line.
        costs: A colormap of matplotlib and the part of it that is visible on the page: cheap to dear.
        matrices: A colormap for matrices of costs: cheap is close to the page.
        elements: Colours of elements of a universe, used in turn.

    Source: M. Okabe, K. Ito, "Color universal design" (2008).

    Example:
        >>> from dataclasses import replace
        >>> from graphmatch import viz
        >>> replace(viz.LIGHT, page="none").page  # transparent
        'none'
    """

    page: str
    text: str
    faint: str
    right: str
    wrong: str
    third: str
    costs: tuple[str, float, float]
    matrices: str
    elements: tuple[str, ...]


LIGHT = Theme(
    page="#ffffff",
    text="#202124",
    faint="#9aa0a6",
    right="#0072b2",
    wrong="#d55e00",
    third="#009e73",
    costs=("plasma", 0.0, 0.78),
    matrices="Blues",
    elements=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b"),
)
DARK = Theme(
    page="#1e2129",
    text="#e6e6e6",
    faint="#7d828c",
    right="#56b4e9",
    wrong="#e69f00",
    third="#2fc49a",
    costs=("plasma", 0.42, 1.0),
    matrices="Blues_r",
    elements=("#56b4e9", "#e69f00", "#2fc49a", "#e08fc0", "#f0e442", "#ff8a5c", "#c4c8d0"),
)
THEMES = {"light": LIGHT, "dark": DARK}


def theme_of(where: str, theme: str | Theme) -> Theme:
    """Returns a theme by name, or the one that was given."""
    if isinstance(theme, Theme):
        return theme
    if not isinstance(theme, str) or theme not in THEMES:
        rule = f"be a Theme or one of {', '.join(map(repr, THEMES))}"
        raise ValueError(_check.message(where, "theme", rule, repr(theme), suggestion(theme, THEMES)))
    return THEMES[theme]


def suggestion(given: object, known: Sequence[str] | dict[str, Any]) -> str:
    """Returns what to do instead of giving an unknown word."""
    close = get_close_matches(str(given).lower(), list(known), 1, 0.5)
    return f"Did you mean {close[0]}?" if close else "Pick one."


def require_matplotlib(where: str) -> None:
    """Refuses to draw without matplotlib, which graphmatch does not depend on."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            f'{where}: matplotlib must be installed to draw; got none. Install it with `pip install "graphmatch[viz]"`.'
        )


def figure_of(where: str, theme: Theme, width: float, height: float, axes: Any = None) -> Any:
    """Returns the figure of given axes, or a new one of that size in inches, which needs no display."""
    require_matplotlib(where)
    if axes is not None:
        if not hasattr(axes, "get_figure"):
            rule, cure = "be axes of matplotlib", "Leave it out for a figure of its own."
            raise TypeError(_check.message(where, "axes", rule, _check.describe(axes), cure))
        return axes.get_figure()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that notebooks show as the result of a cell, although pyplot does not know of it."""

        def _repr_png_(self) -> bytes:
            return picture_bytes(self, ".png")

    # pyplot would choose a backend and keep every figure alive.
    figure = ShownFigure(figsize=(width, height), layout="constrained", facecolor=theme.page, dpi=_RESOLUTION)
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return figure


def plain_axes(axes: Any, theme: Theme, title: str | None = None) -> None:
    """Gives axes for pictures the colours of the theme, and takes lines and ticks away."""
    axes.set_facecolor(theme.page)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, color=theme.text, fontsize=14, parse_math=False)


def curve_axes(axes: Any, theme: Theme, title: str | None = None) -> None:
    """Gives axes for curves the colours of the theme."""
    axes.set_facecolor(theme.page)
    axes.tick_params(colors=theme.text, which="both", labelsize=12)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(theme.faint)
    axes.grid(True, color=theme.faint, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.text)
        label.set_fontsize(13)
    if title:
        axes.set_title(title, color=theme.text, fontsize=14, parse_math=False)


def head(figure: Any, theme: Theme, title: str | None) -> None:
    """Writes a title above a figure, as it is: a dollar sign begins no formula."""
    if title:
        figure.suptitle(title, color=theme.text, fontsize=15, parse_math=False)


def legend(axes: Any, **look: Any) -> None:
    """Gives axes a legend that shows names as they are."""
    for text in axes.legend(**look).get_texts():
        text.set_parse_math(False)


def cost_colours(theme: Theme, values: NDArray[np.float64]) -> Any:
    """Returns what gives costs their colours: cheap to dear, over the range of the values."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    name, low, high = theme.costs
    full = mpl.colormaps[name]
    part = ListedColormap([full(low + (high - low) * step / 255) for step in range(256)], name="costs")
    lowest, highest = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return ScalarMappable(Normalize(lowest, highest), part)


def gap_text(gap: float, difference: float) -> str:
    """Returns a relative gap as titles show it, in per cent; near an objective of 0 the difference itself."""
    if not gap <= _LARGEST_SHARE:
        return f"{difference:.2g}" if np.isfinite(difference) else "open"
    return f"{100 * gap:.2g} %" if gap == 0 or gap >= 1e-4 else "< 0.01 %"


def check_picture_path(where: str, argument: str, path: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> str:
    """Returns the suffix of a file to write, in lower case, or refuses one that names no possible format."""
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        rule = f"end with {', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise ValueError(_check.message(where, argument, rule, repr(str(path)), suggestion(suffix, suffixes)))
    return suffix


def save_figure(figure: Any, path: Any) -> Path:
    """Writes a figure; whoever opens the file sees the old or the new one, never half of it.

    A figure of the same arguments gives the same bytes, whenever it is drawn.

    Args:
        figure: A figure of matplotlib.
        path: A file name that ends with .png, .svg, .pdf, .webp or .jpg.

    Returns:
        The path.

    Raises:
        OSError: If the file cannot be written; an existing file is then unchanged.
        ValueError: If the name ends with something else.

    Example:
        >>> import torch, graphmatch as gm
        >>> from graphmatch import viz
        >>> result = gm.solve(gm.LinearProblem(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])))
        >>> viz.save_figure(viz.draw_costs(result), "costs.png").stat().st_size > 0
        True
    """
    target = as_path("save_figure", path)
    suffix = check_picture_path("save_figure", "path", target)
    write_bytes("save_figure", target, picture_bytes(figure, suffix))
    return target


def picture_bytes(figure: Any, suffix: str) -> bytes:
    """Returns a figure as a file of the format that a suffix names."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    # Without the salt the ids in an SVG are random.
    with mpl.rc_context({"svg.hashsalt": "graphmatch", "svg.fonttype": "path", **_AS_DRAWN}):
        figure.savefig(buffer, format=suffix[1:], dpi=_RESOLUTION, **_UNDATED.get(suffix, {}))
    return buffer.getvalue()
