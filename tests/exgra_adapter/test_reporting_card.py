"""The model card: metadata as the hub reads them, a block of code that runs, and nothing private."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from PIL import Image

from exgra_adapter.config import TrainingConfig
from exgra_adapter.models import build_tiny_model, load_model
from exgra_adapter.prompts import question_prompt
from exgra_adapter.reporting.card import format_model_card, write_model_card
from exgra_adapter.reporting.facts import Facts

SETTINGS = {
    **TrainingConfig("vqa", data="train.json", images="images", output="run", model="tiny").resolved().to_json(),
    "alignment_weight": 1.0,
    "objective": "barycenter",
    "graph_scope": "local",
    "batch_size": 16,
}
FACTS: Facts = {
    "samples": 88,
    "skipped": 2,
    "data_count": 90,
    "data_file": "train.json",
    "data_sha256": "cd" * 32,
    "world_size": 4,
    "parameters": 1000,
    "trainable": 900,
    "base_model": "tiny",
    "versions": {"torch": "2"},
}
HISTORY = [{"step": 1, "ar_loss": 2.0, "matching_accuracy": 0.5, "retrieval": 0.25}]


@pytest.fixture(scope="module")
def tiny():
    return build_tiny_model(["Is there a lesion?", "yes"], seed=0)


def run_code_block(card: Path, monkeypatch, image: Path) -> str:
    """Runs the card's Python as a reader would, inside the model's folder."""
    code = re.search(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.S)[1]
    assert '"image.png"' in code
    monkeypatch.chdir(card.parent)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code.replace('"image.png"', repr(str(image))), "card", "exec"), {})
    return printed.getvalue()


def test_the_metadata_are_those_the_hub_reads(tmp_path):
    facts: Facts = {**FACTS, "base_model": "owner/llava", "datasets": ["owner/pictures", "not a name"]}
    path = write_model_card(tmp_path, SETTINGS, facts, HISTORY)
    assert path == tmp_path / "README.md"
    data = ModelCard.load(path).data.to_dict()
    assert data == yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
    assert data["license"] == "other"
    assert data["license_name"] == "unknown-check-base-model-and-data"
    assert data["pipeline_tag"] == "image-text-to-text"
    assert data["library_name"] == "transformers"
    assert data["base_model"] == "owner/llava"
    assert data["datasets"] == ["owner/pictures"]
    assert {"medical", "graph-matching", "arxiv:2410.02615"} <= set(data["tags"])


@pytest.mark.parametrize(
    ("given_license", "expected"),
    [
        ("cc-by-nc-4.0", ("cc-by-nc-4.0", None)),
        ("Our Own Terms, 2", ("other", "our-own-terms-2")),
        ("other", ("other", "other")),
        ("unknown", ("other", "unknown-check-base-model-and-data")),
    ],
)
def test_the_licence_is_the_one_given(given_license, expected):
    data = ModelCard(format_model_card(SETTINGS, {**FACTS, "license": given_license}, [])).data
    assert (data.license, data.license_name) == expected
    assert ModelCard(format_model_card({**SETTINGS, "license": given_license}, FACTS, [])).data.license == expected[0]


def test_the_licence_of_the_data_is_not_that_of_the_model():
    card = ModelCard(format_model_card({**SETTINGS, "data_license": "CC0 1.0"}, FACTS, []))
    assert "| licence | CC0 1.0 |" in card.text
    assert card.data.license == "other"
    assert "| licence | unknown: check it |" in format_model_card({"data": "d.json"}, {}, [])


def test_a_local_base_model_is_no_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs" / "stage1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for base in ("runs/stage1", str(tmp_path / "runs" / "stage1"), "tiny"):
        card = ModelCard(format_model_card(SETTINGS, {**FACTS, "base_model": base}, []))
        assert card.data.base_model is None
        assert f"trained from `{Path(base).name}`" in card.text


def test_the_card_says_what_a_reader_must_know():
    text = format_model_card(SETTINGS, FACTS, HISTORY)
    parts = (
        "Research use, not for clinical use", "CC BY-NC 4.0", "LLaMA", "arXiv:2410.02615", "cd" * 32,
        "| samples trained on | 88 |", "| left out because they were bad | 2 |", "| cross-view retrieval | 25.0 % |",
        "| `learning_rate` |", "graphs of 16 nodes", "alignment.safetensors",
    )  # fmt: skip
    assert [part for part in parts if part not in text] == []
    off = format_model_card({**SETTINGS, "alignment_weight": 0.0}, FACTS, HISTORY)
    assert "alignment of ExGra-Med was off" in off
    assert "graph-matching" not in ModelCard(off).data.tags


def test_the_card_does_not_tell_where_files_lie():
    private = {name: f"/secret/{name}" for name in ("data", "images", "output", "model")}
    text = format_model_card({**SETTINGS, **private}, {"base_model": "/secret/base", "data_file": "/secret/d.json"}, [])
    assert "secret" not in text
    assert "`d.json`" in text


def test_stock_classes_load_the_model_as_the_card_says(tiny, small_data, tmp_path, monkeypatch):
    for part in tiny:
        part.save_pretrained(tmp_path)
    card = write_model_card(tmp_path, SETTINGS, FACTS, HISTORY)
    image = small_data.images / "0.png"
    model, processor = load_model(tmp_path)
    with Image.open(image) as picture:
        inputs = processor(
            text=question_prompt("Is there a lesion?"), images=picture.convert("RGB"), return_tensors="pt"
        )
    tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = processor.decode(tokens, skip_special_tokens=True).strip()
    assert expected
    assert run_code_block(card, monkeypatch, image) == f"{expected}\n"


def test_the_prompt_is_the_one_given(tiny, small_data, tmp_path, monkeypatch):
    for part in tiny:
        part.save_pretrained(tmp_path)
    prompt = 'A "quoted" question?\n<image>###'
    card = write_model_card(tmp_path, SETTINGS, {**FACTS, "prompt": prompt}, [])
    assert repr(prompt) in card.read_text(encoding="utf-8")
    run_code_block(card, monkeypatch, small_data.images / "0.png")
    chat = format_model_card({**SETTINGS, "prompt": "chat_template"}, FACTS, [])
    assert "processor.apply_chat_template(messages, add_generation_prompt=True)" in chat


def test_adapters_load_with_their_base_as_the_card_says(small_data, tmp_path, monkeypatch):
    model, processor = build_tiny_model(["Is there a lesion?", "yes"], seed=0)
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    model.save_pretrained(base)
    model.name_or_path = str(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapters)
    processor.save_pretrained(adapters)
    (adapters / "README.md").unlink(missing_ok=True)
    card = write_model_card(adapters, SETTINGS, FACTS, [])
    assert ModelCard.load(card).data.library_name == "peft"
    assert "with `peft` installed" in card.read_text(encoding="utf-8")
    run_code_block(card, monkeypatch, small_data.images / "0.png")


@given(
    st.sets(st.sampled_from(sorted(SETTINGS))),
    st.sets(st.sampled_from(sorted(FACTS))),
    st.text(),
)
def test_any_card_has_metadata_that_can_be_read(names, keys, text):
    settings = {name: text if isinstance(SETTINGS[name], str) else SETTINGS[name] for name in names}
    facts: Facts = {key: FACTS[key] for key in keys}  # type: ignore[literal-required,assignment]
    facts.update({"base_model": text, "license": text, "data_file": text})
    card = format_model_card(settings, facts, [])
    assert ModelCard(card).data.pipeline_tag == "image-text-to-text"
    assert card == format_model_card(settings, facts, [])
