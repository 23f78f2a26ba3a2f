"""Sections of the report made of what other commands have left in the results, and on what all rows took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import MISSING, Row, number, table

GRADIENTS = Path("gradients") / "gradients.json"
MULTIGRAPH = Path("multigraph_scaling") / "multigraph.json"
ROBUSTNESS = Path("robustness.json")
OBJECTIVES = Path("objectives.json")
CUDA = Path("cuda.json")
# Groups that have tables of their own for this.
_WITHOUT_RESOURCES = ("growth", "import")
# More cores than this above the threads of a row are more than a rounding of clocks.
_CORES_ABOVE = 0.1


def sections(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields title and text of the sections whose results lie in a folder."""
    makers = {
        "Gradient estimators against the true gradient": (GRADIENTS, _gradients),
        "Methods for several graphs: how they scale": (MULTIGRAPH, _multigraph),
        "Robustness": (ROBUSTNESS, _robustness),
    }
    for title, (path, make) in makers.items():
        if (folder / path).exists():
            yield title, make(json.loads((folder / path).read_text(encoding="utf-8")))
    reports = {"objectives of training": OBJECTIVES, "the GPU": CUDA}
    links = [
        f"[{name}]({path.with_suffix('.md')})"
        for name, path in reports.items()
        if (folder / path.with_suffix(".md")).exists()
    ]
    if links:
        yield "Other reports", f"Of commands that take longer or another machine: {', '.join(links)}."


def _gradients(result: dict[str, Any]) -> str:
    smallest = str(result["study"]["samples"][0])
    lines = [
        [
            f"{row['group']}: {row['name']}",
            row["source"],
            row["solves"],
            number(row["rmse"][smallest]),
            MISSING if row["bias"] is None else f"{row['bias']:.3f} ± {row['bias_standard_error'] or 0:.3f}",
            MISSING if row["cosine"] is None else f"{row['cosine']:.3f}",
        ]
        for row in result["rows"]
        if smallest in row["rmse"]
    ]
    text = (
        f"A problem that is small enough to enumerate; {result['study']['repetitions']} estimates each, S = {smallest} "
        "samples: root mean squared error and bias relative to the norm of the true gradient, mean cosine with it. "
        f"[All figures]({GRADIENTS.with_suffix('.md')}); {_versions(result['versions'])}."
    )
    picture = f"![error of gradient estimators]({GRADIENTS.with_suffix('.png')})"
    return f"{text}\n\n{picture}\n\n{table(['estimator', 'by', 'solves', 'error', 'bias', 'cosine'], lines)}"


def _multigraph(result: dict[str, Any]) -> str:
    exponents = result["exponents"]
    names = list(dict.fromkeys(row["method"] for row in result["rows"]))
    lines = [[name, *(_exponent(exponents.get(axis, {}).get(name)) for axis in ("graphs", "nodes"))] for name in names]
    text = (
        f"Exponents of the time in the number of graphs m and of nodes n, with standard errors. "
        f"[Times, objectives and answers]({MULTIGRAPH.with_suffix('.md')}); {_versions(result['versions'])}."
    )
    return f"{text}\n\n{table(['method', 'm', 'n'], lines)}"


def _exponent(fit: Mapping[str, Any] | None) -> str:
    return MISSING if fit is None else f"{fit['exponent']:.2f} ± {fit['standard_error']:.2f}"


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())


def _robustness(result: dict[str, Any]) -> str:
    """Renders whatever figures are there: plain ones as a table of names, nested ones as tables of their own."""
    parts = []
    context = {name: result[name] for name in ("machine", "versions") if name in result}
    for name, figures in result.items():
        if not isinstance(figures, dict) or name in context:
            continue
        plain = [[key.replace("_", " "), _plain(value)] for key, value in figures.items() if not _is_nested(value)]
        parts.append(f"**{name.replace('_', ' ')}**")
        if plain:
            parts.append(table(["figure", "value"], plain))
        parts += [_nested(key, value) for key, value in figures.items() if _is_nested(value)]
    others = [[key.replace("_", " "), _plain(value)] for key, value in result.items() if not isinstance(value, dict)]
    if others:
        parts.append(table(["figure", "value"], others))
    if context:
        parts.append("; ".join(_versions(values) for values in context.values()) + ".")
    return "\n\n".join(parts)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict)


def _nested(name: str, values: Mapping[str, Any]) -> str:
    name = name.replace("_", " ")
    if values and all(isinstance(value, dict) for value in values.values()):
        columns = list(dict.fromkeys(column for value in values.values() for column in value))
        lines = [[key, *(_plain(value.get(column)) for column in columns)] for key, value in values.items()]
        return table([name, *(column.replace("_", " ") for column in columns)], lines)
    return table([name, "value"], [[key, _plain(value)] for key, value in values.items()])


def _plain(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def resources(rows: Sequence[Row]) -> str:
    """What the rows of every group and solver took: threads, cores that were busy, memory."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    above = []
    for row in rows:
        info = row["extra_info"]
        if row["group"] in _WITHOUT_RESOURCES:
            continue
        found.setdefault((row["group"], _who(row["group"], info)), []).append(info)
        if info.get("busy_cores", 0) > info["threads"] + _CORES_ABOVE:
            above.append(f"{row['name']} {info['busy_cores']:.2f}")
    lines = []
    for (group, solver), infos in found.items():
        memory = [info["memory_bytes"] for info in infos if info.get("memory_bytes") is not None]
        lines.append(
            [
                group,
                solver,
                len(infos),
                ", ".join(map(str, sorted({info["threads"] for info in infos}))),
                number(max(info.get("busy_cores", 0.0) for info in infos), 2),
                number(median(memory) / 1e6, 2) if memory else MISSING,
                number(max(memory) / 1e6, 2) if memory else MISSING,
            ]
        )
    text = (
        "By group and solver: *threads* that its rows were given; *busy cores*: the most that a row kept busy in the "
        "mean, model building between the rounds included; *memory*: by how much resident memory grew at most while a "
        "row ran, in MB, median and largest over the rows: answers, work space, and what libraries load or keep at "
        "their first call; costs that were there before do not count. "
    )
    text += (
        f"More cores than threads: {', '.join(above)}." if above else "No row kept more cores busy than it has threads."
    )
    headers = ["group", "solver", "rows", "threads", "busy cores", "memory, median", "largest"]
    return f"{text}\n\n{table(headers, lines)}"


def _who(group: str, info: Mapping[str, Any]) -> str:
    if group.startswith("gradients"):
        return str(info.get("package", "graphmatch"))
    return str(next((info[key] for key in ("solver", "recipe", "case") if key in info), "graphmatch"))
