"""The model card: the README.md of a trained model, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from exgra_adapter.atomic import write_text
from exgra_adapter.prompts import question_prompt
from exgra_adapter.reporting.facts import Facts, History, Settings, graph_nodes, has_graphs
from exgra_adapter.reporting.markdown import duration, number, percent, table
from exgra_adapter.reporting.measures import late_mean
from exgra_adapter.reporting.settings import split_settings

CARD = "README.md"
_ADAPTER_CONFIG = "adapter_config.json"
_UNKNOWN = "unknown"
_UNKNOWN_LICENSE = "unknown-check-base-model-and-data"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_LICENSE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
# Settings that name places on a machine: a card shows their last part alone, or nothing.
_PATHS = ("data", "images", "deepspeed")
_LEFT_OUT = ("output", "resume", "overwrite", "report_to")

_STAGES = {
    "stage1": "stage 1: the projector learns to describe images",
    "align": "stage 1: the projector learns to describe images",
    "stage2": "stage 2: projector and language model learn to follow instructions",
    "instruct": "stage 2: projector and language model learn to follow instructions",
    "vqa": "fine-tuning on questions and short answers about images",
}

_LIMITS = """\
- **Research use, not for clinical use.** No part of this model was validated for diagnosis, triage or treatment, and it
  is not a medical device.
- Its answers can be wrong, made up, or unsupported by the image, and are worded with the same confidence then.
- It knows the kinds of images, devices, languages and groups of patients that its data holds, and hardly any others;
  errors differ between them.
- It may repeat what its training data holds. Do not train on, or share, data of patients without the right to do so.
- Scores of training batches say nothing about unseen images: score it on held-out data before relying on anything."""

_LICENSES = """\
This training changes no licence: the weights carry those of what they were made from. Whoever shares or uses them must
check each of these:

- **Base model.** Vicuna and LLaMA weights, and LLaVA models built on them, come under Meta's LLaMA licence terms of
  their version (the first LLaMA: non-commercial research).
- **Data.** The LLaVA-Med data are CC BY-NC 4.0: no commercial use. Data written with an LLM service, extended answers
  included, also fall under the terms of that service. VQA sets and their images have licences of their own.
- **Method.** ExGra-Med (arXiv:2410.02615). Its authors' code is CC BY-NC 4.0, and weights that start from one of their
  checkpoints fall under its terms. The training code here is independent of theirs (Apache-2.0)."""

_CITATION = """\
```bibtex
@inproceedings{nguyen2025exgramed,
  title         = {{ExGra-Med}: Extended Context Graph Alignment for Medical Vision-Language Models},
  author        = {Nguyen, Duy M. H. and others},
  booktitle     = {Advances in Neural Information Processing Systems},
  year          = {2025},
  eprint        = {2410.02615},
  archivePrefix = {arXiv}
}
```"""


def write_model_card(folder: Path, settings: Settings, facts: Facts, history: History) -> Path:
    """Writes the model card of a trained model as `README.md` into its folder; an earlier one is replaced.

    Names of files are shown without their folders. Nothing is looked up on the hub.

    Args:
        folder: The model's folder. Adapters (LoRA) are recognised by `adapter_config.json` in it.
        settings: The settings of the run; `license`, where there is such a setting, is the model's licence.
        facts: Facts about it; may be empty.
        history: Its logged steps; may be empty.

    Returns:
        The path of the card.

    Raises:
        OSError: The folder cannot be written to.
    """
    path = Path(folder) / CARD
    write_text(path, format_model_card(settings, facts, history, (Path(folder) / _ADAPTER_CONFIG).is_file()))
    return path


def format_model_card(settings: Settings, facts: Facts, history: History, adapters: bool = False) -> str:
    """Formats the model card: YAML metadata, then Markdown.

    Args:
        settings: The settings of the run.
        facts: Facts about it.
        history: Its logged steps.
        adapters: Whether the folder holds LoRA adapters instead of whole weights.

    Returns:
        The text; equal arguments give equal bytes.
    """
    base = facts.get("base_model") or settings.get("model")
    sections = [
        f"# {_title(settings, base)}",
        "**Research use, not for clinical use.**",
        _description(settings, facts, base),
        "## How to use it",
        "Stock classes of `transformers` load it"
        + (", with `peft` installed: the folder holds adapters and the name of their base model." if adapters else "."),
        _usage(settings, facts),
        "## How it was trained",
        _training_table(settings),
        *(["Further facts of the run:", facts_rows] if (facts_rows := _facts_table(facts)) else []),
        "## Data",
        _data(settings, facts),
        "## Measured in training",
        _measured(history),
        "## Limits",
        _LIMITS,
        "## Licences",
        _LICENSES,
        "## Source of the method",
        _CITATION,
    ]
    header = f"---\n{_metadata(settings, facts, base, adapters).to_yaml()}\n---\n"
    # Reading the text as the hub does shows at once where the metadata are not YAML.
    return str(ModelCard(header + "\n" + "\n\n".join(sections) + "\n"))


def is_hub_name(name: str) -> bool:
    """Says whether `name` reads as `owner/name` on the hub and is no folder here.

    Example:
        >>> is_hub_name("liuhaotian/llava-v1.5-7b"), is_hub_name("./runs/stage1"), is_hub_name("tiny")
        (True, False, False)
    """
    return bool(_HUB_NAME.fullmatch(name)) and not Path(name).exists()


def _metadata(settings: Settings, facts: Facts, base: str | None, adapters: bool) -> ModelCardData:
    given = facts.get("license") or settings.get("license")
    given = None if given == _UNKNOWN else given
    license_name = _UNKNOWN_LICENSE
    if given:
        license_name = re.sub(r"[^a-z0-9.-]+", "-", given.lower()).strip("-") or _UNKNOWN_LICENSE
    known = given is not None and bool(_LICENSE_NAME.fullmatch(given)) and given != "other"
    return ModelCardData(
        license=given if known else "other",
        license_name=None if known else license_name,
        library_name="peft" if adapters else "transformers",
        pipeline_tag="image-text-to-text",
        base_model=base if base and is_hub_name(base) else None,
        datasets=[name for name in facts.get("datasets", ()) if is_hub_name(name)] or None,
        tags=["medical", "vision-language", "llava", "exgra-med", *(["graph-matching"] if has_graphs(settings) else []),
              *(["lora"] if adapters else []), "arxiv:2410.02615"],
    )  # fmt: skip


def _title(settings: Settings, base: str | None) -> str:
    name = Path(base).name if base else "A vision-language model"
    return f"{name}, trained with exgra_adapter ({settings['stage']})" if "stage" in settings else name


def _description(settings: Settings, facts: Facts, base: str | None) -> str:
    stage = _STAGES.get(str(settings.get("stage")), "one stage of training")
    start = f"`{base if is_hub_name(base) else Path(base).name}`" if base else "a model that was not recorded"
    text = f"A vision-language model that answers questions about images, trained from {start}. This is {stage}."
    if not has_graphs(settings):
        return f"{text} The multi-graph alignment of ExGra-Med was off." if "alignment_weight" in settings else text
    nodes = graph_nodes(settings, facts)
    return (
        f"{text} Beside the autoregressive loss, it learned to align graphs{f' of {nodes} nodes' if nodes else ''} of "
        "image, answer and extended answer, one node per sample, after ExGra-Med (weight "
        f"{number(settings.get('alignment_weight'))}). The alignment's own weights (`alignment.safetensors`) serve "
        "further training; answering does without them."
    )


def _usage(settings: Settings, facts: Facts) -> str:
    prompt = facts.get("prompt") or question_prompt("Is there a lesion?")
    lines = [f"prompt = {prompt!r}"]
    if settings.get("prompt") == "chat_template":
        lines = [
            'content = [{"type": "image"}, {"type": "text", "text": "Is there a lesion?"}]',
            'messages = [{"role": "user", "content": content}]',
            "prompt = processor.apply_chat_template(messages, add_generation_prompt=True)",
        ]
    code = [
        "from PIL import Image",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'folder = "."  # this folder, or the name of the model on the hub',
        "processor = AutoProcessor.from_pretrained(folder)",
        'model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")',
        "",
        *lines,
        'inputs = processor(text=prompt, images=Image.open("image.png").convert("RGB"), return_tensors="pt")',
        "inputs = inputs.to(model.device, model.dtype)",
        "tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)",
        'answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)',
        "print(answer.strip())",
    ]
    return "\n".join(["```python", *code, "```"])


def _training_table(settings: Settings) -> str:
    changed, others = split_settings(_public(settings))
    rows = [*changed, *([*row, "same"] for row in others)]
    return table(["setting", "value", "default"], rows, numbers=False) if rows else "No settings were recorded."


def _public(settings: Settings) -> dict[str, Any]:
    """Leaves out what says more about a machine than about a model."""
    shown = {name: value for name, value in settings.items() if name not in _LEFT_OUT}
    for name in _PATHS:
        if isinstance(shown.get(name), str):
            shown[name] = Path(shown[name]).name
    if isinstance(shown.get("model"), str) and not is_hub_name(shown["model"]):
        shown["model"] = Path(shown["model"]).name
    return shown


def _facts_table(facts: Facts) -> str:
    rows = []
    if "steps" in facts:
        rows.append(["optimizer steps", number(facts["steps"])])
    if "parameters" in facts:
        rows.append(["parameters", number(facts["parameters"])])
    if "trainable" in facts:
        rows.append(["trained parameters", number(facts["trainable"])])
    if "seconds" in facts:
        rows.append(["time", duration(facts["seconds"])])
    if "device" in facts:
        rows.append(["devices", f"{facts.get('world_size', 1)} x {facts['device']}"])
    if facts.get("versions"):
        rows.append(["versions", ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()))])
    return table(["", "value"], rows, numbers=False) if rows else ""


def _data(settings: Settings, facts: Facts) -> str:
    name = facts.get("data_file") or settings.get("data")
    rows = [["file", f"`{Path(name).name}`"]] if name else []
    if "data_sha256" in facts:
        rows.append(["SHA-256", f"`{facts['data_sha256']}`"])
    licence = facts.get("data_license") or settings.get("data_license") or _UNKNOWN
    if rows:
        rows.append(["licence", f"{licence}: check it" if licence == _UNKNOWN else licence])
    if "data_count" in facts:
        rows.append(["samples in the file", number(facts["data_count"])])
    if "samples" in facts:
        rows.append(["samples trained on", number(facts["samples"])])
        rows.append(["left out because they were bad", number(facts.get("skipped", 0))])
    return table(["data", ""], rows, numbers=False) if rows else "The data were not recorded."


def _measured(history: History) -> str:
    shares = ("matching_accuracy", "retrieval", "zero_gradient_share")
    names = {
        "ar_loss": "autoregressive loss (nats per token)",
        "extended_text_loss": "loss on extended answers (nats per token)",
        "alignment_loss": "alignment loss",
        "matching_accuracy": "matching with the barycenter",
        "retrieval": "cross-view retrieval",
        "zero_gradient_share": "steps without alignment gradient",
    }
    rows = []
    for key, name in names.items():
        value = late_mean(history, key)
        if value is not None:
            rows.append([name, percent(value) if key in shares else number(value)])
    if not rows:
        return "No value was logged."
    return (
        "Averages over the last quarter of the logged steps, on training batches; no held-out score is among them "
        f"(`exgra-med evaluate` gives those).\n\n{table(['quantity', 'value'], rows)}"
    )
