"""Run by torchrun: training runs one after the other, as a file lists them; optionally killed in the middle.

Arguments: the file, a JSON list of settings; the number of the batch at which every process kills itself, 0 = none.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from exgra_adapter.config_files import config_of
from exgra_adapter.data.collator import IGNORED_LABEL
from exgra_adapter.training import AlignmentTrainer, train


def watch(trainer_class: type[AlignmentTrainer], killed_at: int, seen: list[Any]) -> None:
    """Lets every training step note what it trains on, and the last one end the process."""
    step = trainer_class.training_step

    def watched(self: AlignmentTrainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        sharded = [isinstance(parameter, DTensor) for parameter in model.parameters()]
        rows = [[int(token) for token in row if token != IGNORED_LABEL] for row in inputs["labels"]]
        seen.append({"sharded": all(sharded), "whole": not any(sharded), "answers": rows})
        if len(seen) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, model, inputs, *args, **kwargs)

    trainer_class.training_step = watched


def main(file: Path, killed_at: int) -> None:
    """Trains; what each process has seen lies beside the output folder."""
    seen: list[Any] = []
    watch(AlignmentTrainer, killed_at, seen)
    for settings in json.loads(file.read_text(encoding="utf-8")):
        config = config_of(settings)
        seen.clear()
        train(config, console_progress=False)
        notes = config.output.with_name(f"{config.output.name}.{os.environ['RANK']}.json")
        notes.write_text(json.dumps(seen), encoding="utf-8")
    os._exit(0)  # gloo may abort while Python takes the process apart


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
