"""Run by torchrun, or alone: answers and classifications one after the other, as a file lists them; optionally killed.

Arguments: the file, a JSON list of jobs; the number of the batch at which every process kills itself, 0 = none. What
each process answers and returns of a job lies beside the job's output.
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


def watch(killed_at: int, answered: list[int]) -> None:
    """Notes which questions this process answers; lets it die while it writes down a batch, in the middle of a line."""
    append = journal.Journal.append
    calls = 0

    def counted(self: journal.Journal, entries: Any) -> None:
        nonlocal calls
        calls += 1
        entries = list(entries)
        answered.extend(entry["index"] for entry in entries)
        append(self, entries)
        if calls == killed_at:
            os.truncate(self.path, self.path.stat().st_size - 7)
            os.kill(os.getpid(), signal.SIGKILL)

    journal.Journal.append = counted  # type: ignore[method-assign]


def main(file: Path, killed_at: int) -> None:
    """Does the jobs, one after the other."""
    answered: list[int] = []
    watch(killed_at, answered)
    for job in json.loads(file.read_text(encoding="utf-8")):
        answered.clear()
        output = Path(job.pop("output"))
        records, images = read_records(Path(job.pop("data"))), Path(job.pop("images"))
        predictions = answer_questions(Path(job.pop("model")), records, images, output, **job)
        notes = output.with_name(f"{output.name}.returned.{os.environ.get('RANK', '0')}.json")
        found = {"answered": answered, "returned": [asdict(each) for each in predictions]}
        notes.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
