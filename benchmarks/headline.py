"""Writes the README's section "Measured so far" from the stored results: no number there is typed by hand.

python -m benchmarks.headline           # writes it
python -m benchmarks.headline --check   # exit code 1 where the README says anything else
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from pathlib import Path

from benchmarks.headline_claims import BULLETS, on_gpu, sparse_table
from benchmarks.headline_data import Results, load
from benchmarks.machine import RESULTS, ROOT
from benchmarks.output import write_text

README = ROOT / "README.md"
BEGIN = "<!-- measured: `python -m benchmarks.headline` writes all from here on -->"
END = "<!-- measured: end -->"
_WIDTH = 125


def section(results: Results) -> str:
    """Returns what stands between the markers, without a line end."""
    parts = [_introduction(results)]
    table = sparse_table(results)
    if table:
        parts.append(_table(table))
    bullets = [text for bullet in BULLETS if (text := bullet(results))]
    if bullets:
        parts.append("\n".join(_wrapped(f"- {text}", "  ") for text in bullets))
    gpu = on_gpu(results)
    if gpu:
        parts.append(_wrapped(gpu))
    return "\n\n".join(parts)


def _introduction(results: Results) -> str:
    rows = results.suites.get("benchmarks", [])
    if not rows:
        return "Nothing yet: `make bench-report` measures."
    info = rows[0]["extra_info"]
    machine = info["machine"]
    text = (
        f"On {machine['cores']} cores ({machine['cpu']}), one thread where nothing else is said, peers in the same "
        "run, by `make bench-report` ([report](benchmarks/results/report.md) with pictures, versions, memory). "
        "*certified*: share with a gap of at most 1e-4; *better / worse*: seeds with another objective."
    )
    reasons = list(dict.fromkeys(why for own in results.suites.get("left_out", {}).values() for why in own))
    if reasons:
        text += f" Left out: {'; '.join(reasons)}."
    return _wrapped(text)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(lines: list[list[str]]) -> str:
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|---|" + "---:|" * (len(lines[0]) - 1), *body])


def replaced(document: str, text: str) -> str:
    """Returns a document with another text between the markers.

    Raises:
        ValueError: If the markers are not there once, in order.
    """
    counts = [f"\n{document}".count(f"\n{marker}\n") for marker in (BEGIN, END)]
    if counts != [1, 1] or document.index(BEGIN) > document.index(END):
        raise ValueError(
            f"replaced: document must hold a line {BEGIN!r} and a line {END!r} behind it, once each; got {counts} of "
            "them. Put them there."
        )
    before, begin, rest = document.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    return f"{before}{begin}{text}\n{end}{after}"


def main(arguments: list[str] | None = None, readme: Path = README, folder: Path = RESULTS) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the README is up to date")
    options = parser.parse_args(arguments)
    found = readme.read_text(encoding="utf-8")
    wanted = replaced(found, section(load(folder)))
    if not options.check:
        if wanted != found:
            write_text(readme, wanted)
        sys.stdout.write(f"{readme}\n")
        return 0
    if wanted == found:
        return 0
    changes = difflib.unified_diff(found.splitlines(), wanted.splitlines(), str(readme), "results", lineterm="", n=0)
    sys.stderr.write("\n".join(changes) + "\n")
    sys.stderr.write(f"benchmarks.headline: {readme} differs from the results. Run `python -m benchmarks.headline`.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
