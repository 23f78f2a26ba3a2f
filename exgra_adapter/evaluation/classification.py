"""Zero-shot classification: multiple-choice questions answered by generation, by likelihood, or both.

A question that cannot be asked, and an answer that names no option, is a failure. Failures are wrong: they never leave
the denominator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from exgra_adapter.data.stores import ImageStore, open_image_store
from exgra_adapter.evaluation.answering import (
    ModelReader,
    OnError,
    Precision,
    check_generation,
    refuse_failures,
    trained_prompt,
)
from exgra_adapter.evaluation.choices import ChoiceItem, choice_question, map_choice
from exgra_adapter.evaluation.generate import Query, open_queries, refused_text
from exgra_adapter.evaluation.journal import Entry
from exgra_adapter.evaluation.likelihood import answer_log_likelihoods
from exgra_adapter.evaluation.metrics import Estimate, bootstrap_interval
from exgra_adapter.evaluation.sharing import content_digest, evaluation_processes, run_batches

Method = Literal["generation", "likelihood", "both"]
"""How an option is chosen."""

Rule = Literal["generation", "likelihood", "likelihood_per_token"]
"""How an option is chosen, exactly: likelihood takes the likeliest option, which favours short ones; likelihood per
token divides by the number of tokens."""

_RULES: dict[Method, tuple[Rule, ...]] = {
    "generation": ("generation",),
    "likelihood": ("likelihood", "likelihood_per_token"),
    "both": ("generation", "likelihood", "likelihood_per_token"),
}


@dataclass(frozen=True)
class ChoiceResult:
    """What a model made of one question.

    Attributes:
        item: The question.
        text: The generated answer; None where nothing was generated.
        log_likelihoods: Of each option, in nats; None where they were not computed.
        tokens: Number of tokens of each option.
        error: Why the question could not be asked, else None.
    """

    item: ChoiceItem
    text: str | None = None
    log_likelihoods: tuple[float, ...] | None = None
    tokens: tuple[int, ...] | None = None
    error: str | None = None

    def chosen(self, rule: Rule) -> int | None:
        """Returns the place of the chosen option; None is a failure. Of equally likely options the first is chosen."""
        if rule == "generation":
            return None if self.text is None else map_choice(self.text, self.item.options)
        if self.log_likelihoods is None or self.tokens is None:
            return None
        values = np.array(self.log_likelihoods)
        if rule == "likelihood_per_token":
            values = values / np.array(self.tokens)
        return None if np.isnan(values).any() else int(values.argmax())

    def correct(self, rule: Rule) -> bool:
        """Whether the chosen option is the right one, or has its text."""
        chosen = self.chosen(rule)
        return chosen is not None and self.item.options[chosen] == self.item.options[self.item.answer]


@dataclass(frozen=True)
class RuleScores:
    """Accuracies of one way to choose an option; groups are in the order of their names.

    Attributes:
        accuracy: Over all questions.
        failed: Questions that could not be asked, or whose likelihoods are not numbers.
        unmapped: Generated answers that name no option, or several.
        by_dataset: Accuracy for each dataset.
        by_modality: Accuracy for each modality.
        by_question_type: Accuracy for each type of question.
    """

    accuracy: Estimate
    failed: int
    unmapped: int
    by_dataset: dict[str, Estimate]
    by_modality: dict[str, Estimate]
    by_question_type: dict[str, Estimate]


@dataclass(frozen=True)
class ClassificationScores:
    """What a classification found.

    Attributes:
        chance: Accuracy of guessing, over all questions.
        chance_by: The same for each group, by `dataset`, `modality` and `question_type`.
        rules: Scores for each way to choose an option.
    """

    chance: float
    chance_by: dict[str, dict[str, float]]
    rules: dict[Rule, RuleScores]


def classify(
    model_folder: Path,
    items: Sequence[ChoiceItem],
    images: ImageStore | Path,
    target: Path,
    method: Method = "both",
    batch_size: int = 16,
    max_new_tokens: int = 32,
    prompt: str | None = None,
    resume: bool = True,
    *,
    write: Callable[[list[ChoiceResult]], None],
    on_error: OnError = "count",
    precision: Precision = "fp32",
    console_progress: bool = True,
) -> list[ChoiceResult]:
    """Lets a model choose an option for every question.

    By generation, the model reads the question with all options and answers greedily; `map_choice` finds the option. By
    likelihood, it reads the question alone, and every option is scored as its answer. Processes started by torchrun
    share the batches, and interrupted work is continued, both as in `answer_questions`.

    Args:
        model_folder: The model, as `load_model` takes it.
        items: The questions.
        images: A folder or tar archive with the images, or another store of them.
        target: The main result file; journals lie beside it until the work is finished.
        method: How options are chosen.
        batch_size: Questions answered, and options scored, at once.
        max_new_tokens: Longest generated answer in tokens.
        prompt: The format that the model was trained in; None: what its folder says.
        resume: Continue interrupted work; otherwise it is thrown away.
        write: Writes the result files; called once, on the main process, before the journals are removed.
        on_error: What happens to a question whose image cannot be read, or whose text spells a special token.
        precision: Of weights and arithmetic.
        console_progress: Whether to show a progress bar.

    Returns:
        One result for each question, in their order, in every process.

    Raises:
        ValueError: An argument is out of range, the model cannot be loaded, or the interrupted work was another.
        ImageError: An image cannot be read and `on_error` is "raise".
    """
    check_generation("classify", batch_size, max_new_tokens, on_error, precision)
    if method not in get_args(Method):
        raise ValueError(f"classify: method must be generation, likelihood or both; got {method!r}. Choose one.")
    store = open_image_store(images, images) if isinstance(images, Path) else images
    reader = ModelReader(model_folder, trained_prompt(model_folder) if prompt is None else prompt, precision)

    def prepare(batch: range) -> tuple[list[ChoiceItem], list[Query]]:
        asked = [items[index] for index in batch]
        return asked, open_queries([(choice_question(item), item.image) for item in asked], store)

    def compute(batch: tuple[list[ChoiceItem], list[Query]]) -> list[Entry]:
        asked, queries = batch
        _, processor, formatted = reader.loaded
        errors = [query.error or refused_text([query.question], processor, formatted) for query in queries]
        refuse_failures(errors, on_error)
        entries: list[Entry] = [{} if error is None else {"error": error} for error in errors]
        good = [place for place, error in enumerate(errors) if error is None]
        if method != "likelihood":
            answered = reader.generate([queries[place] for place in good], max_new_tokens)
            for place, (text, _) in zip(good, answered, strict=True):
                entries[place]["text"] = text
        if method != "generation":
            for place, found in zip(good, _score_options(reader, asked, queries, good, batch_size), strict=True):
                entries[place] |= found
        return entries

    def results(entries: Sequence[Entry]) -> list[ChoiceResult]:
        return [_result(item, entry) for item, entry in zip(items, entries, strict=True)]

    with evaluation_processes():
        settings = {
            **reader.settings(),
            "data": content_digest([[i.dataset, i.id, i.image, i.question, i.options] for i in items]),
            "images": store.describe(),
            "method": method,
            "max_new_tokens": max_new_tokens,
            "on_error": on_error,
        }
        entries = run_batches(
            len(items),
            batch_size,
            prepare,
            compute,
            target,
            settings,
            lambda entries: write(results(entries)),
            caller="classify",
            resume=resume,
            description="classifying",
            console_progress=console_progress,
        )
    return results(entries)


def score_choices(
    results: Sequence[ChoiceResult], method: Method, seed: int = 0, resamples: int = 2000
) -> ClassificationScores:
    """Averages the results, over all questions and for each dataset, modality and type of question.

    Args:
        results: At least one.
        method: How options were chosen.
        seed: Of the bootstrap.
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: There is no result.

    Example:
        >>> item = ChoiceItem("1", "Chest CT", "CT", "organ", "Which organ is it?", "a.png", ("lung", "liver"), 1)
        >>> scores = score_choices([ChoiceResult(item, "B"), ChoiceResult(item, "A"), ChoiceResult(item)], "generation")
        >>> generation = scores.rules["generation"]
        >>> round(generation.by_modality["CT"].value, 3), generation.failed, scores.chance
        (0.333, 1, 0.5)
    """
    if not results:
        raise ValueError("score_choices: results must hold at least one question; got none. Pass those of classify.")
    groups = {
        name: _grouped([str(getattr(result.item, name)) for result in results])
        for name in ("dataset", "modality", "question_type")
    }
    guesses = np.array([_chance(result.item) for result in results])
    rules: dict[Rule, RuleScores] = {}
    for rule in _RULES[method]:
        right = np.array([float(result.correct(rule)) for result in results])
        by = {
            name: {group: _estimate(right[places], seed, resamples) for group, places in found.items()}
            for name, found in groups.items()
        }
        failed = [result.chosen(rule) is None for result in results]
        unmapped = [rule == "generation" and result.text is not None for result in results]
        rules[rule] = RuleScores(
            accuracy=_estimate(right, seed, resamples),
            failed=sum(f and not u for f, u in zip(failed, unmapped, strict=True)),
            unmapped=sum(f and u for f, u in zip(failed, unmapped, strict=True)),
            by_dataset=by["dataset"],
            by_modality=by["modality"],
            by_question_type=by["question_type"],
        )
    chance_by = {
        name: {group: float(guesses[places].mean()) for group, places in found.items()}
        for name, found in groups.items()
    }
    return ClassificationScores(float(guesses.mean()), chance_by, rules)


def _score_options(
    reader: ModelReader, items: Sequence[ChoiceItem], queries: Sequence[Query], good: Sequence[int], batch_size: int
) -> list[dict[str, Any]]:
    model, processor, _ = reader.loaded
    asked = [
        (items[place].question, option, image)
        for place in good
        if (image := queries[place].image) is not None
        for option in items[place].options
    ]
    scored = iter(answer_log_likelihoods(model, processor, reader.prompt, asked, batch_size))
    found = []
    for place in good:
        own = [next(scored) for _ in items[place].options]
        # JSON has no infinities and no NaN; null stands for what is no number.
        likelihoods = [value if math.isfinite(value) else None for value, _ in own]
        found.append({"log_likelihoods": likelihoods, "tokens": [count for _, count in own]})
    return found


def _result(item: ChoiceItem, entry: Entry) -> ChoiceResult:
    likelihoods, tokens = entry.get("log_likelihoods"), entry.get("tokens")
    return ChoiceResult(
        item,
        entry.get("text"),
        None if likelihoods is None else tuple(math.nan if value is None else float(value) for value in likelihoods),
        None if tokens is None else tuple(tokens),
        entry.get("error"),
    )


def _grouped(names: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name, []).append(place)
    return dict(sorted(groups.items()))


def _chance(item: ChoiceItem) -> float:
    return sum(option == item.options[item.answer] for option in item.options) / len(item.options)


def _estimate(values: np.ndarray[Any, np.dtype[np.float64]], seed: int, resamples: int) -> Estimate:
    return Estimate(float(values.mean()), *bootstrap_interval([values], seed, resamples), len(values))
