"""Minutes of fuzzing and of stress under a sanitizer, with the numbers in `benchmarks/results/robustness.json`.

    python -m tests.robustness.soak fuzz [--minutes 24]
    python -m tests.robustness.soak stress build/sanitize/thread [--minutes 10]

Fuzzing shares its processor time among the readers, each in a process of its own: one that dies or hangs is a finding
as well. A run that was killed goes on where it was, reader by reader. Everything that shows a finding is kept in
`build/soak/findings`; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import machine
from benchmarks.output import write_json

from .fuzzing import Tally, all_formats

RESULT = machine.RESULTS / "robustness.json"
WORK = machine.ROOT / "build" / "soak"
FINDINGS = WORK / "findings"
STATE = WORK / "fuzzing.json"
SILENCE = 600.0
"""Seconds without a word of a process that fuzzes: it hangs where its own watch does not see it."""
MOST_DEATHS = 10

_NICE = ("nice", "-n", "10")
_REPORTS = re.compile(r"^(?:WARNING: ThreadSanitizer|==\d+==ERROR: |.*: runtime error: )", re.MULTILINE)
_SUMMARY = re.compile(r"stress: (\d+) calls, (\d+) failures")


def fuzz_all(minutes: float, seed: int) -> dict[str, Any]:
    """Fuzzes every reader for an equal share of the time, and returns what the result file says of it."""
    names = [kind.name for kind in all_formats()]
    settings = {"minutes": minutes, "seed": seed, "commit": machine.provenance()["commit"], "readers": names}
    state = json.loads(STATE.read_text(encoding="utf-8")) if STATE.exists() else {}
    if state.get("settings") != settings:
        state = {"settings": settings, "tallies": {}}
    share = 60 * minutes / len(names)
    with tqdm(total=round(60 * minutes), unit="s", desc="fuzzing") as progress:
        for name in names:
            if name not in state["tallies"]:
                progress.set_postfix_str(name)
                state["tallies"][name] = vars(_fuzz_one(name, share, seed, progress))
                write_json(STATE, state)
            progress.n = round(share * len(state["tallies"]))
            progress.refresh()
    tallies = {name: Tally(**tally) for name, tally in state["tallies"].items()}
    STATE.unlink()
    return {
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "cpu_seconds": round(sum(tally.seconds for tally in tallies.values()), 1),
        "findings": sum(len(tally.findings) for tally in tallies.values()),
        "seed": seed,
        "per_reader": {
            name: {"inputs": tally.inputs, "accepted": tally.accepted, "refused": tally.refused}
            for name, tally in tallies.items()
        },
    }


def _fuzz_one(name: str, seconds: float, seed: int, progress: tqdm) -> Tally:
    """Fuzzes one reader, anew after each death of its process."""
    total = Tally()
    for death in range(MOST_DEATHS):
        with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
            left = seconds - total.seconds
            tally, end = _watch(name, left, seed + 1000 * death, Path(folder), progress)
            if end is not None and (Path(folder) / name).exists():
                tally.findings[f"{end} (death {death})"] = (Path(folder) / name).read_bytes().hex()
        for number, (kind, content) in enumerate(tally.findings.items()):
            place = FINDINGS / f"{seed}-{death}-{number}-{name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(bytes.fromhex(content))
            tqdm.write(f"FINDING in {name}: {kind}; see {place}", file=sys.stderr)
        total.inputs += tally.inputs
        total.accepted += tally.accepted
        total.refused += tally.refused
        total.seconds += tally.seconds
        total.findings |= {f"{kind} {death}": content for kind, content in tally.findings.items()}
        if end is None:
            break
    return total


def _watch(name: str, seconds: float, seed: int, folder: Path, progress: tqdm) -> tuple[Tally, str | None]:
    """Runs one process; returns its last tally, and how it ended if not well."""
    # Warnings of Pillow about broken pictures would drown everything else.
    command = [*_NICE, sys.executable, "-W", "ignore", "-m", "tests.robustness.fuzzing"]
    command += [name, str(seconds), str(seed), str(folder)]
    tally = Tally()
    begun = progress.n
    with (
        (folder / "errors.txt").open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=machine.ROOT) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(SILENCE):
            line = process.stdout.readline()
            if not line:
                break
            tally = Tally(**json.loads(line))
            progress.n = begun + round(tally.seconds)
            progress.set_postfix_str(f"{name}: {tally.inputs} files, {len(tally.findings)} findings")
        else:
            process.kill()
            return tally, "no word for a long time"
    if process.returncode:
        last = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return tally, f"exit code {process.returncode}: {' '.join(last)}"
    return tally, None


def stress(program: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Runs the native tests without end under a sanitizer, and returns what the result file says of it."""
    sanitizer = "ThreadSanitizer" if program.name == "thread" else "AddressSanitizer, UndefinedBehaviorSanitizer"
    WORK.mkdir(parents=True, exist_ok=True)
    log = WORK / f"stress-{program.name}.log"
    options = "halt_on_error=0:second_deadlock_stack=1" if program.name == "thread" else "detect_leaks=1"
    variables = {"TSAN_OPTIONS": options, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [*_NICE, "env", *(f"{name}={value}" for name, value in variables.items())]
    command += [str(program.resolve()), "--stress", str(60 * minutes), str(seed)]
    begun = time.monotonic()
    with log.open("wb") as file, tqdm(total=round(60 * minutes), unit="s", desc=f"stress under {sanitizer}") as bar:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(1.0)
            bar.n = min(round(time.monotonic() - begun), bar.total)
            bar.refresh()
            if time.monotonic() - begun > 60 * minutes + SILENCE:
                process.kill()
    seconds = time.monotonic() - begun
    text = log.read_text(encoding="utf-8", errors="replace")
    summary = _SUMMARY.search(text)
    findings = len(_REPORTS.findall(text)) + (int(summary[2]) if summary else 0)
    if findings == 0 and (process.returncode or summary is None):
        findings = 1  # it died or hung without saying why
    if findings:
        FINDINGS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, FINDINGS / f"{seed}-{log.name}")
        tqdm.write(f"{findings} FINDINGS; see {FINDINGS / log.name}", file=sys.stderr)
    return {
        "seconds": round(seconds, 1),
        "findings": findings,
        "sanitizer": sanitizer,
        "calls": int(summary[1]) if summary else 0,
        "seed": seed,
    }


def store(part: str, values: dict[str, Any], place: Path = RESULT) -> None:
    """Writes one part of the result file; the other part stays as it is."""
    found = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    origin = machine.provenance()
    for package in ("pillow", "safetensors", "transformers"):
        origin["versions"][package] = importlib.metadata.version(package)
    parts = {name: found[name] for name in ("fuzzing", "stress") if name in found}
    write_json(place, {**parts, part: values | {"commit": origin["commit"]}, **origin})


def _memory_folder() -> str | None:
    """Where files cost no disk; None = wherever temporary files are."""
    place = Path("/dev/shm")
    return str(place) if place.is_dir() else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fuzzing, stressing = commands.add_parser("fuzz"), commands.add_parser("stress")
    stressing.add_argument("program", type=Path, help="the native tests, built with a sanitizer")
    for each, minutes in ((fuzzing, 24.0), (stressing, 10.0)):
        each.add_argument("--minutes", type=float, default=minutes, help="default: %(default)s")
        each.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        each.add_argument("--output", type=Path, default=RESULT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.command == "fuzz":
        part, values = "fuzzing", fuzz_all(options.minutes, options.seed)
    else:
        part, values = "stress", stress(options.program, options.minutes, options.seed)
    store(part, values, options.output)
    print(json.dumps(values, indent=1))  # noqa: T201  # a program's answer
    return 1 if values["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
