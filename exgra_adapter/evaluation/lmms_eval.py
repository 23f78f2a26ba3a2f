"""A VQA test file as a task folder of lmms-eval, which then runs it with any of its models.

lmms-eval reads a YAML file per task, whose `!function utils.NAME` are functions of the `utils.py` beside it, and here
a file of JSON lines through the loader `json` of the library datasets. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from exgra_adapter.atomic import complete_folder, write_json_lines, write_text
from exgra_adapter.data.files import read_records
from exgra_adapter.data.images import image_path
from exgra_adapter.data.records import Record
from exgra_adapter.evaluation import lmms_eval_task
from exgra_adapter.evaluation.metrics import words

_TASK = """\
# Made from {data}: {count} questions. Scores are those of `exgra-med evaluate vqa`, strict.
# Run it: python -m lmms_eval --include_path {folder} --tasks {task} --model MODEL --batch_size 1
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: !function utils.doc_to_target
process_results: !function utils.process_results
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
  num_beams: 1
metric_list:
  - metric: summary
    aggregation: !function utils.summarise
    higher_is_better: true
  - metric: open_recall
    aggregation: !function utils.mean
    higher_is_better: true
  - metric: closed_accuracy
    aggregation: !function utils.mean
    higher_is_better: true
  - metric: exact_match
    aggregation: !function utils.mean
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    pre_prompt: ""
    post_prompt: {post_prompt}
metadata:
  - version: 1.0
"""


def export_lmms_eval(
    data: Path,
    images: Path,
    output: Path,
    task: str | None = None,
    post_prompt: str = "",
    max_new_tokens: int = 64,
) -> int:
    """Writes the task folder: `TASK.yaml`, `utils.py` and the documents `TASK.jsonl`, all or nothing.

    The YAML names the documents, and the documents the images, by absolute paths: leave them where they are.

    Args:
        data: A test file with one question per record.
        images: The folder of its images.
        output: The folder to make.
        task: The task's name, of small letters, digits and underscores; None takes it from the name of `output`.
        post_prompt: Follows every question, for example a line that asks for a short answer.
        max_new_tokens: The longest answer.

    Returns:
        The number of documents.

    Raises:
        ValueError: The data are broken or hold several questions per record, an image is missing, the name is not as
            said, or `output` has something in it.
    """
    output, images = Path(output), Path(images)
    name = task if task is not None else re.sub(r"\W+", "_", output.resolve().name.lower())
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(
            f"export_lmms_eval: task must be small letters, digits and underscores; got {name!r}. Rename it."
        )
    if not images.is_dir():
        raise ValueError(f"export_lmms_eval: images must be an existing folder; got {images}. Check the path.")
    records = read_records(data, allow_duplicate_ids=True)
    if not records:
        raise ValueError(f"export_lmms_eval: data must hold at least one question; got none in {data}. Add questions.")
    documents = [_document(record, images.resolve()) for record in records]
    missing = [document["image"] for document in documents if not Path(document["image"]).is_file()]
    if missing:
        raise ValueError(
            f"export_lmms_eval: every image must be in {images}; got {len(missing)} questions without, the first "
            f"{missing[0]}. Add the images, or leave the questions out: "
            "exgra-med data prepare ... --missing-images drop."
        )
    place = output.resolve()
    text = _TASK.format(
        data=json.dumps(Path(data).name),
        count=len(documents),
        folder=json.dumps(str(place)),
        task=name,
        # A JSON text is a YAML text too, whatever characters a path has.
        documents=json.dumps(str(place / f"{name}.jsonl")),
        max_new_tokens=max_new_tokens,
        post_prompt=json.dumps(post_prompt),
    )
    functions = Path(lmms_eval_task.__file__).read_text(encoding="utf-8")
    with complete_folder(output, "export_lmms_eval") as folder:
        write_json_lines(folder / f"{name}.jsonl", documents)
        write_text(folder / "utils.py", functions)
        write_text(folder / f"{name}.yaml", text)
    return len(documents)


def _document(record: Record, images: Path) -> dict[str, Any]:
    if len(record.turns) != 1:
        raise ValueError(
            f"export_lmms_eval: a record must have one question; got {len(record.turns)} in record {record.id!r}. "
            "Export single questions: lmms-eval asks each on its own."
        )
    turn = record.turns[0]
    # The rule of `metrics.score` for files that do not say it.
    kind = record.answer_type or ("CLOSED" if words(turn.answer) in (["yes"], ["no"]) else "OPEN")
    return {
        "id": record.id,
        "image": str(image_path(images, record.image)),
        "question": turn.question,
        "answer": turn.answer,
        "answer_type": kind,
    }
