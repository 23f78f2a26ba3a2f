"""Tries whether the tests catch seeded bugs: `python tests/seeded_bugs/run.py`, or `make mutants`.

For every bug in `bugs.yaml` one text of a copy of the sources is replaced, the native module built again if it is C++,
and the tests run that are to catch it: tests of `make test` that need no data. The bug is caught if one of them fails.
Before that they all have to pass without any bug. What is done is kept in the folder, so that a run that was
interrupted goes on where it stopped, as long as neither sources nor bugs change.

Exit status 1: a bug survives, could not be tried, or replaces a text that is not there exactly once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
BUGS_FILE = Path(__file__).with_name("bugs.yaml")
README = ROOT / "tests" / "README.md"
BEGIN, END = "<!-- seeded bugs, written by tests/seeded_bugs/run.py --write -->", "<!-- end of seeded bugs -->"
SOURCES = ("csrc", "exgra_adapter", "graphmatch", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
# Longer than any of the tests takes on a busy machine: a bug may also send one round in circles.
SECONDS_PER_TEST, SECONDS_PER_BUG = 200, 1800
BUILD = """
import os
from pybind11.setup_helpers import ParallelCompile, naive_recompile
from setuptools import setup
from setup import cpu_extension
ParallelCompile(default=os.cpu_count() or 1, needs_recompile=naive_recompile).install()
setup(ext_modules=[cpu_extension()], script_args=["--quiet", "build_ext", "--inplace"])
"""


@dataclass(frozen=True)
class Bug:
    """A replacement of one text in one file, what it breaks, and the tests that are to notice."""

    name: str
    area: str
    file: str
    breaks: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def is_native(self) -> bool:
        return self.file.startswith("csrc/")

    def problem(self, root: Path) -> str | None:
        """Why the bug cannot be put into the sources; None where it can."""
        path = root / self.file
        count = path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0
        if count != 1:
            return f"its text must occur once in {self.file}; it occurs {count} times"
        return None


@dataclass(frozen=True)
class Trial:
    """What became of a bug: `outcome` is caught, survived or broken, `by` the test that failed or the reason."""

    key: str
    outcome: str
    by: str


def read_bugs() -> list[Bug]:
    """The bugs of the list, in its order."""
    listed = yaml.safe_load(BUGS_FILE.read_text(encoding="utf-8"))
    return [Bug(**{**each, "tests": tuple(each["tests"])}) for each in listed]


@dataclass
class Workplace:
    """A copy of the sources in which bugs are tried, and what was found there."""

    folder: Path
    trials: dict[str, Trial] = field(default_factory=dict)
    digest: str = ""
    is_built: bool = False

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def journal(self) -> Path:
        return self.folder / "trials.jsonl"

    def prepare(self) -> None:
        """Copies the sources, beside objects that earlier runs have compiled."""
        wanted = {path.relative_to(ROOT): path.read_bytes() for name in SOURCES for path in _files(ROOT / name)}
        present = {path.relative_to(self.tree) for name in SOURCES for path in _files(self.tree / name)}
        # Only what differs is written: its new time says that it has to be compiled.
        changed = {
            name for name, text in wanted.items() if name not in present or (self.tree / name).read_bytes() != text
        }
        if any(name.suffix == ".hpp" or name.name == "setup.py" for name in changed | (present - wanted.keys())):
            shutil.rmtree(self.tree / "build", ignore_errors=True)
        for name in present - wanted.keys():
            (self.tree / name).unlink()
        for name in changed:
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_bytes(wanted[name])
        # What tests find depends on all code, on what tests share, and on the files of the tests themselves.
        shared = [name for name in wanted if not _is_test(name) and name.suffix != ".md" and name.name != "bugs.yaml"]
        self.digest = self._content(shared)
        if self.journal.is_file():
            for line in self.journal.read_text(encoding="utf-8").splitlines():
                try:
                    trial = Trial(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # torn by a kill
                self.trials[trial.key] = trial

    def key(self, work: object, tests: Sequence[str]) -> str:
        """Names a piece of work: the sources, what is tried on them, and the tests."""
        files = {self.tree / test.partition("::")[0] for test in tests}
        content = self._content([path.relative_to(self.tree) for path in files])
        return hashlib.sha256(f"{self.digest} {content} {json.dumps([work, *tests])}".encode()).hexdigest()

    def _content(self, names: Sequence[Path]) -> str:
        content = hashlib.sha256()
        for name in sorted(names):
            text = (self.tree / name).read_bytes()
            content.update(f"{name} {len(text)} ".encode() + text)
        return content.hexdigest()

    def keep(self, trial: Trial) -> Trial:
        """Writes down what was found."""
        self.trials[trial.key] = trial
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return trial

    def unchanged(self, tests: Sequence[str]) -> Trial:
        """Whether the tests pass without any bug."""
        key = self.key("no bug", tests)
        if key in self.trials:
            return self.trials[key]
        problem = self.build()
        return self.keep(Trial(key, "broken", problem) if problem else self.run_tests(key, tests))

    def attempt(self, bug: Bug) -> Trial:
        """Puts one bug into the copy, and takes it out again."""
        key = self.key([bug.file, bug.old, bug.new], bug.tests)
        if key in self.trials:
            return self.trials[key]
        with self._with(bug):
            problem = self.build()
            return self.keep(Trial(key, "broken", problem) if problem else self.run_tests(key, bug.tests))

    @contextmanager
    def _with(self, bug: Bug) -> Iterator[None]:
        path = self.tree / bug.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
        self.is_built = self.is_built and not bug.is_native
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")
            self.is_built = self.is_built and not bug.is_native

    def build(self) -> str | None:
        """Compiles what has changed and links; returns the reason where it cannot."""
        if self.is_built:
            return None
        done = self._run([sys.executable, "-c", BUILD])
        self.is_built = done.returncode == 0
        return None if self.is_built else f"does not build: {done.stderr.strip()[-300:]}"

    def run_tests(self, key: str, tests: Sequence[str]) -> Trial:
        """Runs tests up to the first failure."""
        limits = ["--timeout", str(SECONDS_PER_TEST), "--timeout-method", "thread"]
        options = ["-x", "-v", "-rfE", "--no-header", "-p", "no:cacheprovider", "-m", "not slow", *limits]
        done = self._run([sys.executable, "-m", "pytest", *options, *tests])
        failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if done.returncode == 0:
            return Trial(key, "survived", "")
        if done.returncode == 1 and failed:
            return Trial(key, "caught", failed[0])
        started = [line.split()[0] for line in done.stdout.splitlines() if "::" in line.split(" ")[0]]
        if started and done.returncode not in (2, 3, 4, 5):
            return Trial(key, "caught", f"{started[-1]} (does not end, or crashes)")
        return Trial(key, "broken", f"tests do not run: {done.stdout.strip()[-300:]} {done.stderr.strip()[-300:]}")

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        # No compiled Python: files change within the second that its time stamps know.
        own = {"PYTHONPATH": os.pathsep.join(filter(None, [str(self.tree), os.environ.get("PYTHONPATH")]))}
        environment = {**os.environ, **own, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("GRAPHMATCH_DATA", None)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=self.tree, env=environment, start_new_session=True, **pipes) as process:
            try:
                output, errors = process.communicate(timeout=SECONDS_PER_BUG)
            except BaseException as error:  # also Ctrl-C: nothing that was started goes on
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                output, errors = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


def table(bugs: Sequence[Bug], trials: Sequence[Trial]) -> str:
    """The table for the README: one line per bug."""
    lines = ["| Bug | Area | File | What it breaks | Caught by |", "|---|---|---|---|---|"]
    for bug, trial in zip(bugs, trials, strict=True):
        by = f"`{_short(trial.by)}`" if trial.outcome == "caught" else f"**{trial.outcome}**"
        lines.append(f"| {bug.name} | {bug.area} | `{bug.file}` | {bug.breaks} | {by} |")
    caught = sum(trial.outcome == "caught" for trial in trials)
    return "\n".join([f"{caught} of {len(bugs)} seeded bugs are caught:", "", *lines])


def write_readme(text: str) -> None:
    """Replaces the part of the README between the two marks."""
    page = README.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    with tempfile.NamedTemporaryFile("w", dir=README.parent, suffix=".md", delete=False, encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")
    Path(file.name).chmod(0o644)
    Path(file.name).replace(README)


def _short(test: str) -> str:
    """A test without its folder and parameters."""
    return test.partition("[")[0].rpartition("/")[2]


def _is_test(name: Path) -> bool:
    return name.parts[0] == "tests" and name.name.startswith("test_")


def _files(path: Path) -> list[Path]:
    """The text files of a folder, or the file itself, if it is there."""
    found = path.rglob("*") if path.is_dir() else [path]
    return [each for each in found if each.is_file() and each.suffix not in (".so", ".pyc")]


def main() -> int:
    parser = argparse.ArgumentParser(description="Tries whether the tests catch seeded bugs.")
    parser.add_argument("names", nargs="*", help="bugs to try; none = all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "seeded_bugs", help="where to work")
    parser.add_argument("--write", action="store_true", help="write the table into tests/README.md")
    options = parser.parse_args()
    bugs = read_bugs()
    unknown = set(options.names) - {bug.name for bug in bugs}
    if unknown:
        parser.error(f"names must be those of bugs in {BUGS_FILE.name}; got {sorted(unknown)}")
    if options.write and options.names:
        parser.error("--write must have all bugs tried; got names. Leave them out.")
    if options.names:
        bugs = [bug for bug in bugs if bug.name in options.names]
    misplaced = [f"{bug.name}: {problem}" for bug in bugs if (problem := bug.problem(ROOT)) is not None]
    if misplaced:
        sys.stderr.write("\n".join(misplaced) + "\n")
        return 1
    place = Workplace(options.folder.resolve())
    place.prepare()
    tests = sorted({test for bug in bugs for test in bug.tests})
    bar = tqdm(total=len(bugs) + 1, unit="bug", desc="no bug")
    sound = place.unchanged(tests)
    if sound.outcome != "survived":
        bar.close()
        sys.stderr.write(f"without any bug: {sound.outcome}, {sound.by}\n")
        return 1
    trials = []
    for bug in bugs:
        bar.update()
        bar.set_description(bug.name)
        trials.append(place.attempt(bug))
        if trials[-1].outcome != "caught":
            bar.write(f"{trials[-1].outcome}: {bug.name} ({bug.file}) {trials[-1].by}")
    bar.update()
    bar.close()
    text = table(bugs, trials)
    sys.stdout.write(text + "\n")
    if options.write:
        write_readme(text)
    return 0 if all(trial.outcome == "caught" for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
