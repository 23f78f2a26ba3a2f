r"""Extended answers from many endpoints at once: `exgra-med caption` on parts of the input, each at one endpoint.

    python examples/scale/captions_many_endpoints.py train.json --output train_long.json --model NAME \
        --endpoint http://gpu1:8000/v1 --endpoint http://gpu2:8000/v1

Each endpoint takes the next part when it is free. Parts are journals: a part whose endpoint fails is gone on with at
another one, and the same command goes on after a kill; only requests in flight are asked again. When all parts are
there they are merged, in the order of the input. Options that this command does not know go to `exgra-med caption`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from exgra_adapter.atomic import complete_folder
from exgra_adapter.complete_file import complete_file
from exgra_adapter.data.files import parse_raw_sample, raw_samples

_CALLER = "captions_many_endpoints"
_MANIFEST = "parts.json"
# The command in a process that ends with this one, even by kill -9: its standard input ends then. An orphan would hold
# the journal of its part.
_COMMAND = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(3)), daemon=True).start()
from exgra_adapter.cli import main
sys.exit(main(["caption", *sys.argv[1:]]))
"""


@dataclass
class Part:
    """A stretch of the input."""

    number: int
    folder: Path
    tries: int = 0

    @property
    def samples(self) -> Path:
        """The samples, a line each."""
        return self.folder / f"part-{self.number:05d}.jsonl"

    @property
    def output(self) -> Path:
        """The samples with extended answers; there once all are asked for."""
        return self.folder / f"part-{self.number:05d}.long.jsonl"

    @property
    def journal(self) -> Path:
        """Every reply."""
        return self.output.with_suffix(".journal.jsonl")

    @property
    def log(self) -> Path:
        """What the command said."""
        return self.folder / f"part-{self.number:05d}.log"

    @property
    def done(self) -> Path:
        """There once no item of the part is open any more."""
        return self.folder / f"part-{self.number:05d}.done"


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        failed: Parts in which items failed although the endpoint answers.
        lost: Endpoints that answer no more, with what was said last.
    """

    failed: list[Part] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


def split(source: Path, folder: Path, size: int) -> list[Part]:
    """Writes the parts of the input, or finds those of an earlier run; a broken sample stops here.

    Raises:
        ValueError: A sample is broken, or the folder holds the parts of another input.
    """
    digest, total = hashlib.blake2b(digest_size=16), 0
    for sample in tqdm(raw_samples(source, _CALLER), desc="reading", unit="sample", leave=False):
        parse_raw_sample(sample, _CALLER)
        digest.update(json.dumps(sample.content, sort_keys=True).encode("utf-8"))
        total += 1
    if total == 0:
        raise ValueError(f"{_CALLER}: INPUT must have samples; got none in {source}. Name another file.")
    found = {"input": digest.hexdigest(), "samples": total, "part": size}
    manifest = folder / _MANIFEST
    if manifest.exists():
        earlier = json.loads(manifest.read_text(encoding="utf-8"))
        if earlier != found:
            raise ValueError(
                f"{_CALLER}: {folder} must hold the parts of the same input; got parts of another, or of another "
                "--part. Give the same input and --part, or remove the folder."
            )
    else:
        with complete_folder(folder, _CALLER) as made:
            (made / _MANIFEST).write_text(json.dumps(found) + "\n", encoding="utf-8")
            file = None
            for number, sample in enumerate(raw_samples(source, _CALLER)):
                if number % size == 0:
                    if file is not None:
                        file.close()
                    file = Part(number // size, made).samples.open("w", encoding="utf-8")
                file.write(json.dumps(sample.content, ensure_ascii=False) + "\n")
            file.close()
    return [Part(number, folder) for number in range(-(-total // size))]


def answers(endpoint: str) -> bool:
    """Whether an endpoint answers at all: any status but a failure of the server is an answer."""
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/models")
    if os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {os.environ['OPENAI_API_KEY']}")
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (urllib.error.URLError, OSError, ValueError):
        return False


class Run:
    """Asks for all parts: a thread for each endpoint, each with one `exgra-med caption` at a time."""

    def __init__(self, parts: list[Part], options: list[str], most_tries: int) -> None:
        self.options, self.most_tries = options, most_tries
        self.open: queue.SimpleQueue[Part] = queue.SimpleQueue()
        self.left = 0
        self.outcome = Outcome()
        self.lock, self.changed = threading.Lock(), threading.Event()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping = False
        for part in parts:
            if not part.done.exists():
                self.left += 1
                self.open.put(part)

    def ask(self, endpoints: list[str], progress: tqdm) -> Outcome:
        """Returns when all parts are done or no endpoint is left."""
        threads = [threading.Thread(target=self._serve, args=(each, progress), daemon=True) for each in endpoints]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        except KeyboardInterrupt:
            self.stop()
            raise
        return self.outcome

    def stop(self) -> None:
        """Ends the commands; what they have finished is in the journals."""
        self.stopping = True
        with self.lock:
            running = list(self.running.values())
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    def _serve(self, endpoint: str, progress: tqdm) -> None:
        while not self.stopping and self.left > 0 and endpoint not in self.outcome.lost:
            try:
                part = self.open.get(timeout=0.2)
            except queue.Empty:
                continue  # another endpoint may still give its part back
            code = self._caption(part, endpoint)
            if self.stopping:
                return
            part.tries += 1
            healthy = code == 0 or (code == 1 and part.output.exists() and answers(endpoint))
            with self.lock:
                if code == 0 or (healthy and part.tries >= self.most_tries):
                    part.done.touch()
                    self.outcome.failed += [part] if code else []
                    self.left -= 1
                    progress.update()
                else:
                    self.open.put(part)
                if not healthy:
                    self.outcome.lost[endpoint] = _last_line(part.log)

    def _caption(self, part: Part, endpoint: str) -> int:
        """Runs the command for one part; returns its exit code."""
        command = [sys.executable, "-c", _COMMAND, str(part.samples), "--output", str(part.output)]
        part.output.unlink(missing_ok=True)
        # Whatever an earlier try could not get is asked for again; what it got is not.
        again = ["--resume", "--retry-failed"] if part.journal.exists() else []
        with part.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--endpoint", endpoint, *again, *self.options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TQDM_DISABLE": "1"},
            )
            with self.lock:
                self.running[endpoint] = process
            try:
                return process.wait()
            finally:
                process.stdin.close()
                with self.lock:
                    del self.running[endpoint]


def check_options(part: Part, options: list[str]) -> int:
    """Lets `exgra-med caption` say what is wrong with its options before anything is asked; returns its exit code."""
    command = [sys.executable, "-m", "exgra_adapter", "caption", str(part.samples), "--dry-run", *options]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        sys.stderr.write(tried.stderr)
    return tried.returncode


def merge(parts: list[Part], output: Path) -> int:
    """Writes the samples of all parts in their order; returns how many there are."""
    lines = output.suffix == ".jsonl"
    count = 0
    with complete_file(output) as file:
        for line in _all_lines(parts):
            file.write(line if lines else ("[\n" if count == 0 else ",\n") + line.rstrip("\n"))
            count += 1
        if not lines:
            file.write("\n]\n")
    return count


def _all_lines(parts: list[Part]) -> Iterator[str]:
    for part in parts:
        with part.output.open(encoding="utf-8") as file:
            yield from file


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was said"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_CALLER}.py",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
    )
    parser.add_argument("input", metavar="INPUT", type=Path, help="file, folder or pattern of records")
    parser.add_argument("--output", metavar="OUT", type=Path, required=True, help="file to write, .json or .jsonl")
    parser.add_argument("--endpoint", metavar="URL", action="append", required=True, help="give it once per endpoint")
    parser.add_argument("--part", metavar="N", type=int, default=2000, help="samples of a part (default: %(default)s)")
    parser.add_argument(
        "--tries", metavar="N", type=int, default=2, help="commands for a part with failed items (default: %(default)s)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    for name in ("part", "tries"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1; got {getattr(options, name)}")
    if len(set(options.endpoint)) < len(options.endpoint):
        parser.error("--endpoint must be given once for each endpoint; got one twice")
    if options.output.suffix not in (".json", ".jsonl"):
        parser.error(f"--output must end in .json or .jsonl; got {options.output}")
    if options.output.resolve() == options.input.resolve():
        parser.error("--output must be another file than INPUT")
    folder = options.output.with_name(f"{options.output.name}.parts")
    try:
        parts = split(options.input, folder, options.part)
        if (code := check_options(parts[0], more)) != 0:
            return code
        run = Run(parts, more, options.tries)
        with tqdm(total=len(parts), initial=len(parts) - run.left, desc="captions", unit="part") as progress:
            outcome = run.ask(options.endpoint, progress)
        for endpoint, said in outcome.lost.items():
            sys.stderr.write(f"{endpoint} was given up: {said}\n")
        if run.left:
            sys.stderr.write(
                f"{_CALLER}: --endpoint must name an endpoint that answers; {run.left} of {len(parts)} parts are open "
                f"and none is left. All replies are kept in {folder}; the same command goes on.\n"
            )
            return 1
        count = merge(parts, options.output)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"Interrupted. All replies are kept in {folder}; the same command goes on.\n")
        return 130
    sys.stdout.write(f"{count:,} samples in {options.output}; replies, reports and logs of the parts in {folder}\n")
    if outcome.failed:
        names = ", ".join(part.log.name for part in outcome.failed)
        sys.stderr.write(f"Items failed in {len(outcome.failed)} parts; see {names} in {folder}.\n")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
