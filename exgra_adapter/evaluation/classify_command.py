"""The command `exgra-med evaluate classify`: multiple-choice questions, without training on them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.console import launched_rank, main_process_complains_first, natural, say
from exgra_adapter.evaluation.options import add_generation_options

_DESCRIPTION = """\
Lets a model choose among options, on files in OmniMedVQA's format, and writes accuracies for each dataset and modality:
  exgra-med evaluate classify --model runs/vqa --data QA_information/Open-access --images OmniMedVQA \\
                              --output runs/vqa/omnimedvqa
On four GPUs:
  torchrun --nproc-per-node 4 -m exgra_adapter evaluate classify --precision bf16 --model ...

The data is a list of questions such as
  {"dataset": "Chest CT", "question_id": "1", "modality_type": "CT", "question_type": "Anatomy Identification",
   "question": "Which organ is shown?", "image_path": "a.png", "gt_answer": "Liver",
   "option_A": "Lung", "option_B": "Liver"}"""

_EPILOG = """\
generation            the model reads question and options and answers greedily; its answer names an option by its
                      letter or by its text, or counts as wrong
likelihood            the option that is likeliest as the answer to the question alone
likelihood per token  the same, for the mean over the option's tokens, so that short options have no advantage

A question whose image cannot be read is wrong too. Intervals are 95 % percentile bootstrap.
Written: classification.json (scores), items.csv (every question), accuracy_by_dataset.png, accuracy_by_modality.png.
A run that was interrupted or killed goes on with the same command."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `classify`; the parsed options get a `run` that takes them and returns the exit code."""
    classify = subparsers.add_parser(
        "classify",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="multiple-choice questions",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    classify.add_argument(
        "--model", metavar="DIR", type=Path, required=True, help="model folder (the output of exgra-med train)"
    )
    classify.add_argument(
        "--data", metavar="PATH", type=Path, required=True, help="JSON file of questions, or a folder of them"
    )
    classify.add_argument(
        "--images", metavar="PATH", type=Path, required=True, help="folder or tar archive of the images"
    )
    classify.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder for the results; earlier ones are replaced"
    )
    classify.add_argument(
        "--method",
        choices=("generation", "likelihood", "both"),
        default="both",
        help="how options are chosen (default: %(default)s)",
    )
    add_generation_options(classify, max_new_tokens=32)
    classify.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    classify.set_defaults(run=_run, usage_error=classify.error)


def _run(options: argparse.Namespace) -> int:
    # Importing torch and transformers takes seconds; the help does without.
    from exgra_adapter.evaluation.choices import read_choice_items
    from exgra_adapter.evaluation.classification import ChoiceResult, classify, score_choices
    from exgra_adapter.evaluation.classification_report import ITEMS, format_classification, write_classification

    def write(results: list[ChoiceResult]) -> None:
        scores = score_choices(results, options.method, options.seed)
        write_classification(options.output, results, scores, options.method, options.seed)
        say(format_classification(scores))

    with main_process_complains_first():
        results = classify(
            options.model,
            read_choice_items(options.data),
            options.images,
            options.output / ITEMS,
            options.method,
            options.batch_size,
            options.max_new_tokens,
            options.prompt,
            options.resume,
            write=write,
            on_error=options.on_error,
            precision=options.precision,
        )
    if launched_rank() == 0:
        errors = [result.error for result in results if result.error is not None]
        if errors:
            say(f"\n{len(errors)} questions could not be asked; the first: {errors[0]}")
        say(f"\nResults: {options.output}")
    return 0
