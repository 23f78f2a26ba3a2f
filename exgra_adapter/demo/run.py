"""Runs the whole method once, small: data, the three stages with and without alignment, evaluation, report.

Everything is written into a hidden folder beside the output, which takes the output's name when it is complete. An
interrupted run therefore leaves an earlier result untouched and no half-written files, and a new run replaces the
earlier one as a whole: phases are never reused, because minutes are cheaper than a figure from older code.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from exgra_adapter.atomic import shortened, write_json
from exgra_adapter.config import Stage, TrainingConfig
from exgra_adapter.console import say
from exgra_adapter.data.records import read_records
from exgra_adapter.demo.dataset import DemoData, write_dataset
from exgra_adapter.demo.measure import majority_answers, measure_alignment, paired_difference, score_topics
from exgra_adapter.demo.report import REPORT, format_verdict, is_demo_folder, write_report
from exgra_adapter.demo.results import ARMS, Arm, ArmResult, DemoConfig, DemoResult, HeldOutAlignment, History
from exgra_adapter.evaluation.files import write_answers
from exgra_adapter.evaluation.generate import generate_answers
from exgra_adapter.evaluation.metrics import score
from exgra_adapter.models import build_tiny_model, load_model
from exgra_adapter.models.load import without_weight_bars
from exgra_adapter.training import train

_LONGEST_ANSWER = 12  # Tokens; the longest reference has 4.


def run_demo(
    output: Path,
    seed: int = 0,
    threads: int | None = None,
    config: DemoConfig | None = None,
    console_progress: bool = True,
) -> Path:
    """Runs the demo and writes report, plots, data and models.

    Args:
        output: The folder to write. It may hold an earlier demo, which is replaced when the new one is complete.
        seed: Seed of the data, the weights and the order of the samples.
        threads: CPU threads; None leaves torch's choice.
        config: Sizes and learning rates; None takes the defaults.
        console_progress: Whether to name the phases on the console and to show progress bars.

    Returns:
        The path of the report.

    Raises:
        ValueError: The output folder holds something else, or an argument is out of range.
    """
    if seed < 0:
        raise ValueError(f"run_demo: seed must be at least 0; got {seed}. Use a natural number.")
    if threads is not None and threads < 1:
        raise ValueError(f"run_demo: threads must be at least 1; got {threads}. Leave it out for torch's choice.")
    output = output.resolve()
    _require_free(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{shortened(output.name)}-", dir=output.parent))
    except OSError as error:
        raise ValueError(
            f"run_demo: output must be in a folder that can be written to; got {output} ({error.strerror}). "
            "Choose another one."
        ) from None
    usual_threads = torch.get_num_threads()
    torch.set_num_threads(threads or usual_threads)
    try:
        folder.chmod(0o755)
        _Demo(config or DemoConfig(), seed, folder, console_progress).run()
        _name_final_folder(folder, output)
        _replace(output, folder)
    finally:
        torch.set_num_threads(usual_threads)
        shutil.rmtree(folder, ignore_errors=True)
    return output / REPORT


@dataclass
class _Demo:
    """One run; `seconds` collects the wall-clock time of its phases."""

    config: DemoConfig
    seed: int
    folder: Path
    console_progress: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        config = self.config
        with self._phase("drawing pictures"):
            data = write_dataset(
                self.folder / "data",
                config.train_pictures,
                config.test_pictures,
                config.questions,
                self.seed,
                self.console_progress,
            )
            parameters = self._build_model(data)
        with self._phase("stage 1"):
            caption_history = self._train("stage1", data.captions, data, "tiny", "stage1")
            before = self._measure(data, "stage1", trained=False)
        arms = {arm: self._run_arm(arm, data) for arm in ARMS}
        train_records, test_records = read_records(data.vqa_train), read_records(data.vqa_test)
        majority = score(
            test_records,
            majority_answers(train_records, test_records, data.topics),
            seed=self.seed,
            resamples=config.bootstrap_resamples,
        )
        result = DemoResult(
            config=config,
            seed=self.seed,
            threads=torch.get_num_threads(),
            parameters=parameters,
            caption_history=caption_history,
            before=before,
            arms=arms,
            majority=majority,
            majority_by_topic=score_topics(majority.items, data.topics, self.seed, config.bootstrap_resamples),
            difference=paired_difference(
                arms["with alignment"].scores, arms["without alignment"].scores, self.seed, config.bootstrap_resamples
            ),
            topics=data.topics,
            test_records=tuple(test_records),
            seconds=self.seconds,
        )
        write_report(result, self.folder, data.images)
        if self.console_progress:
            say(format_verdict(result).replace("**", ""))

    def _build_model(self, data: DemoData) -> int:
        model, processor = build_tiny_model(data.texts, self.seed)
        with without_weight_bars():
            model.save_pretrained(self._model("tiny"))
        processor.save_pretrained(self._model("tiny"))
        return model.num_parameters()

    def _run_arm(self, arm: Arm, data: DemoData) -> ArmResult:
        config = self.config
        name = arm.replace(" ", "_")
        with self._phase(f"stage 2 {arm}"):
            instruct = self._train("stage2", data.conversations, data, "stage1", f"{name}/stage2", arm)
            after = self._measure(data, f"{name}/stage2", trained=arm == "with alignment")
        with self._phase(f"fine-tuning {arm}"):
            vqa = self._train("vqa", data.vqa_train, data, f"{name}/stage2", f"{name}/vqa")
        with self._phase(f"evaluation {arm}"):
            records = read_records(data.vqa_test)
            model, processor = load_model(self._model(f"{name}/vqa"))
            predictions = generate_answers(
                model, processor, records, data.images, 32, _LONGEST_ANSWER, self.console_progress
            )
            scores = score(records, predictions, seed=self.seed, resamples=config.bootstrap_resamples)
            by_topic = score_topics(scores.items, data.topics, self.seed, config.bootstrap_resamples)
            write_answers(self.folder / "answers" / f"{name}.jsonl", predictions)
            write_json(self.folder / "answers" / f"{name}.scores.json", asdict(scores))
        return ArmResult(instruct, vqa, after, scores, by_topic, tuple(predictions))

    def _train(
        self,
        stage: Stage,
        records: Path,
        data: DemoData,
        model: str,
        name: str,
        arm: Arm = "without alignment",
    ) -> History:
        config = self.config
        steps, rate = {
            "stage1": (config.caption_steps, config.caption_rate),
            "stage2": (config.instruct_steps, config.instruct_rate),
            "vqa": (config.vqa_steps, config.vqa_rate),
        }[stage]
        settings = TrainingConfig(
            stage,
            data=records,
            images=data.images,
            output=self._model(name),
            model=str(self._model(model)),
            objective="barycenter" if arm == "with alignment" else "none",
            alignment_weight=config.alignment_weight,
            max_steps=steps,
            batch_size=config.batch_size,
            learning_rate=rate,
            seed=self.seed,
            logging_steps=config.logging_steps,
            # A checkpoint serves to resume, which the demo never does.
            save_steps=steps + 1,
        )
        history = train(settings, self.console_progress).history
        # The same seed gives the same results, but not the same seconds.
        return [{name: value for name, value in entry.items() if not name.startswith("seconds_")} for entry in history]

    def _measure(self, data: DemoData, name: str, trained: bool) -> HeldOutAlignment:
        records = read_records(data.conversations_test)
        return measure_alignment(self._model(name), records, data.images, self.config.batch_size, self.seed, trained)

    def _model(self, name: str) -> Path:
        return self.folder / "models" / name

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if self.console_progress:
            say(f"{name} ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _require_free(output: Path) -> None:
    """Refuses to replace a folder that is neither empty nor an earlier demo."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"run_demo: output must be a folder; got the file {output}. Choose another name.")
    if output.is_dir() and any(output.iterdir()) and not is_demo_folder(output):
        raise ValueError(
            f"run_demo: output must be empty or hold an earlier demo; got {output} with other files. Choose another "
            "folder."
        )


def _name_final_folder(folder: Path, output: Path) -> None:
    """Lets the settings of the trained models name the folder that the result is about to move to."""
    for settings in folder.glob("models/**/settings.json"):
        values = json.loads(settings.read_text(encoding="utf-8"))
        moved = {
            name: value.replace(str(folder), str(output), 1) if isinstance(value, str) else value
            for name, value in values.items()
        }
        write_json(settings, moved)


def _replace(output: Path, folder: Path) -> None:
    """Gives the finished folder the output's name; the earlier result goes only after that."""
    if not output.exists():
        folder.rename(output)
        return
    earlier = folder.with_name(f"{folder.name}-replaced")
    output.rename(earlier)
    try:
        folder.rename(output)
    except BaseException:
        earlier.rename(output)
        raise
    shutil.rmtree(earlier)
