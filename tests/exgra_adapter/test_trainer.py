"""The loss of a training step: weights, gradients, and what is averaged over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor, TrainerCallback, TrainingArguments

import graphmatch as gm
from exgra_adapter.alignment import BatchAlignment, load_alignment, save_alignment
from exgra_adapter.data.collator import Collator, CollatorOptions
from exgra_adapter.data.dataset import RecordDataset
from exgra_adapter.models import build_tiny_model
from exgra_adapter.objectives import build_objective
from exgra_adapter.prompts import question_prompt
from exgra_adapter.trainer import AlignmentTrainer

Make = Callable[..., AlignmentTrainer]
ALIGNED = 0.5


@pytest.fixture
def make(small_data, tmp_path) -> Make:
    """Builds trainers whose model, alignment and settings are the same unless an argument says otherwise."""

    def build(
        weight: float = ALIGNED,
        legacy: bool = False,
        dropout: float = 0.0,
        reuse: bool = False,
        **arguments: Any,
    ) -> AlignmentTrainer:
        turns = [turn for record in small_data.records for turn in record.turns]
        model, processor = build_tiny_model([turn.answer for turn in turns], seed=0)
        model.model.vision_tower.requires_grad_(False)
        torch.manual_seed(0)
        objective = build_objective("barycenter", 128, neighbours=2, dropout=dropout, legacy=legacy)
        assert objective is not None
        texts = ("extended",) if reuse else ("answer", "extended")
        alignment = BatchAlignment(objective, texts, reuse, seed=0) if weight else None
        options = CollatorOptions(512, texts, "rows", answer_positions=reuse, count_padding=legacy)
        settings = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 4,
            "max_steps": 2,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "learning_rate": 1e-3,
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "report_to": "none",
            "save_strategy": "no",
            "dataloader_pin_memory": False,
            "use_cpu": True,
        }
        return AlignmentTrainer(
            model=model,
            args=TrainingArguments(**(settings | arguments)),
            train_dataset=RecordDataset(small_data.records, small_data.images),
            data_collator=Collator(processor, options if weight else CollatorOptions(512)),
            processing_class=processor,
            alignment=alignment,
            alignment_weight=weight,
        )

    return build


def batch_of(trainer: AlignmentTrainer, indices: list[int]) -> dict[str, torch.Tensor]:
    return trainer.data_collator([trainer.train_dataset[index] for index in indices])


def gradients(trainer: AlignmentTrainer) -> dict[str, torch.Tensor]:
    """All gradients by name, and none left behind."""
    assert trainer.alignment is not None
    named = [*trainer.model.named_parameters(), *trainer.alignment.objective.named_parameters()]
    found = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
    for _, parameter in named:
        parameter.grad = None
    return found


def test_the_loss_is_the_weighted_sum_of_both(make):
    trainer, plain = make(weight=0.5), make(weight=0.0)
    batch = batch_of(trainer, [0, 1, 2, 3])
    trainer.model.eval()
    trainer.alignment.objective.eval()
    total, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    alone = plain.compute_loss(plain.model.eval(), batch_of(plain, [0, 1, 2, 3]))
    torch.testing.assert_close(outputs.loss, total)
    with trainer.attached():
        outputs = trainer.model(**batch)
    torch.testing.assert_close(outputs.loss, total)
    batch = {name: value for name, value in batch.items() if not name.startswith("text_")}
    torch.testing.assert_close(trainer.model(**batch).loss, alone, msg="the model itself is as it was")
    assert 0 < (total - alone).item() <= 0.5 * 2


@pytest.mark.parametrize("scale", [2.0**-10, 65536.0])
def test_gradients_follow_the_scale_of_the_loss(make, scale):
    """Trap 1: loss scaling for fp16 changes neither the weight nor the direction of the alignment's gradient."""
    found = []
    for factor in (1.0, scale):
        trainer = make(weight=1.0)
        loss = trainer.compute_loss(trainer.model.train(), batch_of(trainer, [0, 1, 2, 3, 4, 5]))
        (loss * factor).backward()
        found.append({name: gradient / factor for name, gradient in gradients(trainer).items()})
    assert found[0].keys() == found[1].keys()
    assert any("message_passing" in name and gradient.abs().sum() > 0 for name, gradient in found[0].items())
    for name, gradient in found[0].items():
        # Powers of two round nothing, so that there is nothing to forgive.
        assert (found[1][name] - gradient).abs().max() <= 1e-6 * gradient.abs().max(), name


def test_accumulation_changes_the_weight_of_neither_loss(make):
    """Trap 1: two batches of four per step teach as much as the mean over the two batches does."""
    trainer = make(gradient_accumulation_steps=2)
    batches = [batch_of(trainer, [0, 1, 2, 3]), batch_of(trainer, [4, 5, 6, 7])]
    taught = sum((batch["labels"][:, 1:] != -100).sum() for batch in batches)
    trainer.model.train()
    trainer.create_optimizer()
    for batch in batches:
        trainer.training_step(trainer.model, dict(batch), num_items_in_batch=taught)
    accumulated = gradients(trainer)

    reference = make()
    reference.model.train()
    reference.alignment.objective.train()
    for batch in batches:
        outputs = reference.model(**{name: value for name, value in batch.items() if not name.startswith("text_")})
        share = (batch["labels"][:, 1:] != -100).sum() / taught
        total = reference.compute_loss(reference.model, batch)
        (outputs.loss * share + (total - outputs.loss) / 2).backward()
    for name, gradient in gradients(reference).items():
        # Some gradients nearly cancel, so that rounding shows; a wrong weight would be off by a factor of two.
        assert (accumulated[name] - gradient).abs().max() <= 0.05 * gradient.abs().max(), name


def test_logged_values_are_means_over_the_step(make, small_data):
    whole, split = make(max_steps=1, per_device_train_batch_size=8), make(max_steps=1, gradient_accumulation_steps=2)
    entries = []
    for trainer in (whole, split):
        trainer.train_dataset.records = small_data.records[:8]
        trainer.train()
        entries.append(trainer.state.log_history[0])
    assert entries[0]["ar_loss"] == pytest.approx(entries[1]["ar_loss"], rel=1e-4)
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["ar_loss"] + ALIGNED * entry["alignment_loss"], rel=1e-4)
        assert 0 <= entry["alignment_loss"] <= 2
        for name in ("matching_accuracy", "retrieval", "zero_gradient_share"):
            assert 0 <= entry[name] <= 1
        assert entry["gradient_norm"] > 0


def test_both_texts_take_one_pass_of_the_language_model(make):
    trainer = make()
    calls = {"language model": 0, "vision tower": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    trainer.model.get_decoder().register_forward_hook(count("language model"))
    trainer.model.model.vision_tower.register_forward_hook(count("vision tower"))
    trainer.compute_loss(trainer.model, batch_of(trainer, [0, 1, 2]))
    assert calls == {"language model": 2, "vision tower": 1}


def test_the_order_of_a_batch_does_not_matter(make):
    trainer = make()
    trainer.model.eval()
    trainer.alignment.objective.eval()
    with torch.no_grad():
        losses = [
            trainer.compute_loss(trainer.model, batch_of(trainer, order)) for order in ([0, 1, 2, 3], [2, 0, 3, 1])
        ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("legacy", [False, True])
def test_message_passing_learns_with_the_model(make, legacy):
    trainer = make(max_steps=3, legacy=legacy)  # batches of 4, 4 and 1
    before = {name: value.clone() for name, value in trainer.alignment.objective.named_parameters()}
    trainer.train()
    assert all(not torch.equal(before[name], value) for name, value in trainer.alignment.objective.named_parameters())
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]
    assert not trainer.model.model.vision_tower.training


def test_a_trained_model_is_a_stock_model_again(make, tmp_path):
    trainer = make()
    trainer.train()
    assert not any("alignment" in name for name, _ in trainer.model.named_parameters())
    processor: LlavaProcessor = trainer.processing_class
    inputs = processor(text=question_prompt("side?"), images=trainer.train_dataset[0].image, return_tensors="pt")
    assert trainer.model.train().generate(**inputs, max_new_tokens=2).shape[0] == 1
    trainer.save_model(str(tmp_path / "saved"))
    loaded, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    again = make()
    load_alignment(again.alignment.objective, tmp_path / "saved")
    for name, value in trainer.alignment.objective.state_dict().items():
        assert torch.equal(again.alignment.objective.state_dict()[name], value), name


def test_alignment_files_have_the_names_of_the_library(make, tmp_path):
    """A converted checkpoint has no objective around its message passing."""
    torch.manual_seed(1)
    library = gm.BarycenterAlignment(dim=128)
    save_alignment(library.state_dict(), tmp_path)
    trainer = make()
    load_alignment(trainer.alignment.objective, tmp_path)
    for name, value in library.state_dict().items():
        assert torch.equal(trainer.alignment.objective.alignment.state_dict()[name], value), name
    save_alignment(trainer.alignment.objective.state_dict(), tmp_path)
    assert load_file(tmp_path / "alignment.safetensors").keys() == library.state_dict().keys()


def test_alignment_files_must_fit(tmp_path):
    save_alignment(gm.BarycenterAlignment(dim=8).state_dict(), tmp_path)
    with pytest.raises(ValueError, match="must fit the model and the objective; got"):
        load_alignment(gm.BarycenterAlignment(dim=16), tmp_path)
    with pytest.raises(ValueError, match=r"must hold alignment.safetensors"):
        load_alignment(gm.BarycenterAlignment(dim=8), Path(tmp_path / "none"))


def test_a_loss_that_is_not_finite_ends_the_training(make):
    trainer = make(weight=0.0)
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="must stay finite; got nan at step 1"):
        trainer.train()


@pytest.mark.parametrize("saved", ["no", "steps"])
def test_a_loss_that_is_not_finite_after_the_last_log_ends_the_training_too(make, saved):
    trainer = make(weight=0.0, logging_steps=10, save_strategy=saved)
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: compute_loss(*args, **kwargs) * float("nan")
    with pytest.raises(FloatingPointError, match="the loss must stay finite"):
        trainer.train()
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*/trainer_state.json"))


def test_weights_that_are_not_finite_are_not_saved(make):
    class Overflow(TrainerCallback):
        def on_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            with torch.no_grad():
                model.lm_head.weight[0] = float("nan")

    trainer = make(weight=0.0, max_steps=1, save_strategy="steps")
    trainer.add_callback(Overflow())
    with pytest.raises(FloatingPointError, match="the weights must stay finite; got others at step 1"):
        trainer.train()
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*/trainer_state.json"))


def test_a_weight_needs_an_alignment(make):
    with pytest.raises(ValueError, match="0 without alignment; got 1"):
        AlignmentTrainer(alignment_weight=1.0)
