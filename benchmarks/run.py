"""Measures everything that the report and the README's figures are made of, and writes both.

    python -m benchmarks.run                 # everything; what fails does not keep the rest from its results
    python -m benchmarks.run --only suites   # the suites of this folder alone
    python -m benchmarks.run --fresh         # also what an interrupted or failed run of the same commit has done

A part that passed is not measured again by a second run of the same clean commit, until a run has passed as a whole.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import RESULTS, ROOT, commit
from benchmarks.other_reports import GRADIENTS, MULTIGRAPH
from benchmarks.output import write_json, write_rows
from benchmarks.rows import Run, joined

JOURNAL = ROOT / ".benchmarks" / "run.json"
# What `make bench-report` may take on two cores.
_MINUTES = 40
# Seconds for one benchmark; the time of the test suite would be too short.
_TIMEOUT = 900
_INTERRUPTED = 130


@dataclass(frozen=True)
class Part:
    """A part of the whole.

    Attributes:
        name: In messages.
        kind: "suites", "studies" or "reports".
        run: Does it and returns an exit code.
    """

    name: str
    kind: str
    run: Callable[[], int]

    @property
    def is_kept(self) -> bool:
        """Whether what it has done need not be done again; reports follow from the rest."""
        return self.kind != "reports"


def parts() -> list[Part]:
    """Returns all parts in their order."""
    suites = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("test_*.py"))
    studies = {
        "alignment loss alone": [sys.executable, "-m", "benchmarks.alignment"],
        "landmarks": [sys.executable, "-m", "benchmarks.keypoint_learning"],
        "gradients": _bench("gradients", RESULTS / GRADIENTS.parent),
        "several graphs": _bench("multigraph", RESULTS / MULTIGRAPH.parent),
    }
    return [
        *(Part(suite, "suites", lambda suite=suite: run_suite(suite)) for suite in suites),
        *(Part(name, "studies", lambda command=command: run_command(command)) for name, command in studies.items()),
        *(
            Part(name, "reports", lambda name=name: run_command([sys.executable, "-m", f"benchmarks.{name}"]))
            for name in ("report", "headline")
        ),
    ]


def _bench(study: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "graphmatch", "bench", study, "--output", str(folder)]


def run_command(command: Sequence[str]) -> int:
    """Runs a command in the project's folder and returns its exit code."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def run_suite(suite: str, results: Path = RESULTS / "benchmark.json") -> int:
    """Runs one suite in a process of its own; if all of it passed, its rows replace those that are stored of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "pytest", suite, "--benchmark-only", f"--benchmark-json={file}"]
        code = run_command([*command, "--quiet", "-o", f"timeout={_TIMEOUT}"])
        if code == 0:
            stored: Run | None = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
            write_rows(results, joined(stored, json.loads(file.read_text(encoding="utf-8")), suites=[suite]))
    return code


def run_parts(chosen: Sequence[Part], tree: str, journal: Path = JOURNAL, say: Callable[[str], object] = print) -> int:
    """Runs parts one after the other, notes which passed, and says how long each took.

    Args:
        chosen: The parts.
        tree: The commit; what a journal says of another one, or of a tree with changes, does not count.
        journal: Where passed parts are noted, until all have passed.
        say: Takes lines of text.

    Returns:
        0, or 1 where a part failed.
    """
    done = _done(journal, tree)
    kept = {*done, *(part.name for part in chosen if part.is_kept)}
    failed = []
    for place, part in enumerate(chosen, start=1):
        if part.is_kept and part.name in done:
            say(f"[{place}/{len(chosen)}] {part.name}: done before, in {done[part.name]:.0f} s (--fresh does it again)")
            continue
        say(f"[{place}/{len(chosen)}] {part.name}")
        start = time.monotonic()
        code = part.run()
        seconds = time.monotonic() - start
        if code:
            failed.append(part.name)
            say(f"    {part.name} failed after {seconds:.0f} s with exit code {code}; what it had before stays")
            continue
        done[part.name] = seconds
        if part.is_kept:
            write_json(journal, {"commit": tree, "seconds": {name: done[name] for name in done if name in kept}})
    minutes = sum(done.get(part.name, 0.0) for part in chosen) / 60
    for part in chosen:
        say(f"{part.name:45} {f'{done[part.name]:7.1f} s' if part.name in done else ' failed'}")
    say(f"{'total':45} {minutes:7.1f} min, of {_MINUTES} for all parts on two cores")
    if failed:
        again = " The same command does only these and the reports again." if _is_known(tree) else ""
        say(f"Failed: {', '.join(failed)}.{again}")
        return 1
    journal.unlink(missing_ok=True)
    return 0


def _done(journal: Path, tree: str) -> dict[str, float]:
    """Returns the seconds of the parts that a journal says have passed."""
    if not _is_known(tree) or not journal.exists():
        return {}
    noted = json.loads(journal.read_text(encoding="utf-8"))
    return dict(noted["seconds"]) if noted["commit"] == tree else {}


def _is_known(tree: str) -> bool:
    """Whether the name of a tree says what is in it."""
    return tree != "unversioned" and not tree.endswith("-dirty")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("suites", "studies", "reports")
    parser.add_argument("--only", choices=kinds, nargs="+", default=kinds, help="kinds of parts (all)")
    parser.add_argument("--fresh", action="store_true", help="do again what an unfinished run has done")
    options = parser.parse_args(arguments)
    if options.fresh:
        JOURNAL.unlink(missing_ok=True)
    if not os.environ.get("GRAPHMATCH_DATA"):
        sys.stdout.write("GRAPHMATCH_DATA names no data folder: generated problems only.\n")

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    try:
        return run_parts([part for part in parts() if part.kind in options.only], commit(), say=say)
    except KeyboardInterrupt:
        say("Interrupted. The same command goes on here, where nothing is changed meanwhile.")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
