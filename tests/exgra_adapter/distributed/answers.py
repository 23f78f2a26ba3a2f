"""Run by torchrun, or alone: answers and classifications one after the other, as a file lists them; optionally killed.

Arguments: the file, a JSON list of jobs; the number of the batch at which every process kills itself, 0 = none. What
each process returns of a job lies beside the job's output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exgra_adapter.data.records import read_records
from exgra_adapter.evaluation import journal
from exgra_adapter.evaluation.answering import answer_questions
from exgra_adapter.evaluation.sharing import evaluation_processes


def kill_at(batch: int) -> None:
    """Lets the process die while it writes down a batch, in the middle of a line."""
    append = journal.Journal.append
    calls = 0

    def counted(self: journal.Journal, entries: Any) -> None:
        nonlocal calls
        calls += 1
        append(self, entries)
        if calls == batch:
            os.truncate(self.path, self.path.stat().st_size - 7)
            os.kill(os.getpid(), signal.SIGKILL)

    journal.Journal.append = counted  # type: ignore[method-assign]


def main(file: Path, killed_at: int) -> None:
    """Does the jobs inside one group of processes."""
    if killed_at:
        kill_at(killed_at)
    with evaluation_processes():
        for job in json.loads(file.read_text(encoding="utf-8")):
            output = Path(job.pop("output"))
            records, images = read_records(Path(job.pop("data"))), Path(job.pop("images"))
            predictions = answer_questions(Path(job.pop("model")), records, images, output, **job)
            notes = output.with_name(f"{output.name}.returned.{os.environ.get('RANK', '0')}.json")
            notes.write_text(json.dumps([asdict(each) for each in predictions]), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
