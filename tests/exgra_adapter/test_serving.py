"""Exported models in programs that know nothing of this project: plain transformers, and its server."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from PIL import Image

from exgra_adapter.chat_template import chat_template
from exgra_adapter.data.records import Record, Turn
from exgra_adapter.evaluation.answering import answer_questions
from exgra_adapter.models import add_dense_connector, build_tiny_model, export_model, load_model
from exgra_adapter.prompts import IMAGE_TAG, ChatTemplatePrompt, prompt_format

QUESTION = "Is there a lesion?"
LENGTH = 8
# What the export changes by rounding: everything else keeps its bits.
ROUNDED = {"plain": False, "lora": False, "sci": False, "dci": True, "dci-lora": True}
# What they add is in "dci-lora" as well.
SLOW = ("lora", "sci")

# Another program. Importing this project fails, wherever it is installed.
FOREIGN = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("graphmatch", "exgra_adapter"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
for name in ("graphmatch", "exgra_adapter"):
    try:
        __import__(name)
    except ImportError as error:
        assert "is blocked" in str(error)
    else:
        raise SystemExit(f"{name} was imported")

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, picture, question, length, output = sys.argv[1:]
torch.set_num_threads(1)
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
image = Image.open(picture).convert("RGB")
inputs = processor(text=prompt, images=image, return_tensors="pt", add_special_tokens=False)
with torch.no_grad():
    logits = model(**inputs).logits
    tokens = model.generate(**inputs, max_new_tokens=int(length), do_sample=False)[0, inputs["input_ids"].shape[1] :]
answer = processor.decode(tokens, skip_special_tokens=True).strip()
np.savez(output, logits=logits.numpy(), ids=inputs["input_ids"].numpy(), answer=answer)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"graphmatch", "exgra_adapter"}, loaded
"""


@dataclass(frozen=True)
class Exported:
    """A model as it is evaluated here, and its export."""

    kind: str
    own: Path
    stock: Path
    picture: Path


def trained(model: torch.nn.Module, seed: int = 3) -> None:
    """Changes every trainable weight, as training would: fresh adapters and connectors change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return build_tiny_model([QUESTION, "yes, on the left", "What is shown?"], seed=0)


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=[pytest.mark.slow] if each in SLOW else []) for each in ROUNDED],
)
def exported(request: pytest.FixtureRequest, tiny: tuple[Any, Any], tmp_path_factory: Any) -> Exported:
    folder = tmp_path_factory.mktemp("served")
    model, processor = copy.deepcopy(tiny)
    connector, _, adapter = request.param.partition("-")
    if connector in ("dci", "sci"):
        model, processor = add_dense_connector(model, processor, connector)
    trained(model)
    model.save_pretrained(folder / "own")
    processor.save_pretrained(folder / "own")
    own = folder / "own"
    if "lora" in (connector, adapter):
        targets = r".*language_model.*\.(q_proj|v_proj)"
        settings = LoraConfig(r=2, target_modules=targets, modules_to_save=["multi_modal_projector"])
        adapted = get_peft_model(load_model(own)[0], settings)
        trained(adapted)
        own = folder / "adapter"
        adapted.save_pretrained(own)
    pixels = np.random.default_rng(1).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    export_model(own, folder / "stock")
    return Exported(request.param, own, folder / "stock", folder / "picture.png")


def own_answer(exported: Exported, folder: Path) -> str:
    """What `exgra-med evaluate` gets for the picture and the question."""
    record = Record("1", exported.picture.name, (Turn(QUESTION, "yes"),))
    found = answer_questions(
        exported.own,
        [record],
        exported.picture.parent,
        folder / "answers.jsonl",
        max_new_tokens=LENGTH,
        console_progress=False,
    )
    assert found[0].error is None
    assert found[0].prediction, "an empty answer compares nothing"
    return found[0].prediction


def test_plain_transformers_computes_and_answers_the_same(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "foreign.py").write_text(FOREIGN, encoding="utf-8")
    output = tmp_path / "found.npz"
    arguments = [exported.stock, exported.picture, QUESTION, LENGTH, output]
    done = subprocess.run(
        [sys.executable, "-I", "foreign.py", *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(output)
    model, processor = load_model(exported.own)
    prompt = prompt_format("llava", processor).prompt(QUESTION).replace(IMAGE_TAG, processor.image_token)
    inputs = processor(text=prompt, images=Image.open(exported.picture).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits
    assert np.array_equal(found["ids"], inputs["input_ids"].numpy())
    # LoRA is merged by the evaluation too; a folded DCI connector adds up in another order.
    tolerance = 1e-5 if ROUNDED[exported.kind] else 0.0
    torch.testing.assert_close(torch.from_numpy(found["logits"]), expected, rtol=0, atol=tolerance)
    assert str(found["answer"]) == own_answer(exported, tmp_path)


words = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=30).map(str.strip)
texts = words.filter(lambda text: text and IMAGE_TAG not in text and "###" not in text and "</s>" not in text)


@pytest.mark.parametrize("name", ["llava", "released"])
@given(turns=st.lists(st.tuples(texts, texts), max_size=3), question=texts)
def test_a_chat_template_says_what_its_format_says(name: str, turns: list[tuple[str, str]], question: str) -> None:
    processor = build_tiny_model([QUESTION], seed=0)[1]
    processor.tokenizer.add_tokens(["<im_start>", "<im_end>"])
    expected = prompt_format(name, processor).prompt(question, turns)
    processor.chat_template = chat_template(name, processor)
    asked, parts = [*turns, (question, None)], []
    for number, (text, answer) in enumerate(asked):
        # Clients put the image behind the text as often as in front of it.
        image = [] if number else [{"type": "image"}]
        parts += [{"role": "user", "content": [{"type": "text", "text": text}, *image]}]
        parts += [] if answer is None else [{"role": "assistant", "content": answer}]
    rendered = processor.apply_chat_template(parts, add_generation_prompt=True)
    assert rendered == f"<s>{expected}".replace(IMAGE_TAG, processor.image_token)
    tokens = processor.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert tokens == processor.tokenizer(expected.replace(IMAGE_TAG, processor.image_token))["input_ids"]


def test_texts_alone_and_system_messages_are_rendered() -> None:
    processor = build_tiny_model([QUESTION], seed=0)[1]
    messages = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": QUESTION}]
    processor.chat_template = chat_template("llava", processor)
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert rendered == f"<s>Answer in JSON. USER: {QUESTION} ASSISTANT:"
    processor.chat_template = chat_template("released", processor)
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert rendered == f"<s>Answer in JSON.\n\n### Human: {QUESTION}\n### Assistant:"
    with pytest.raises(ValueError, match="name must be llava or released; got 'chat_template'"):
        chat_template("chat_template", processor)


def test_the_template_is_that_of_the_training(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = copy.deepcopy(tiny)
    path = tmp_path / "model"
    model.save_pretrained(path)
    processor.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    processor.save_pretrained(path)
    assert export_model(path, tmp_path / "kept").prompt == "chat_template"
    assert (tmp_path / "kept" / "chat_template.jinja").read_text(encoding="utf-8") == processor.chat_template
    (path / "settings.json").write_text(json.dumps({"prompt": "llava"}), encoding="utf-8")
    assert export_model(path, tmp_path / "trained").prompt == "llava"
    exported = load_model(tmp_path / "trained")[1]
    assert ChatTemplatePrompt(exported).prompt(QUESTION) == prompt_format("llava", exported).prompt(QUESTION)
    with pytest.raises(ValueError, match=r"the tokenizer must know <im_start> and <im_end> for prompt=released"):
        export_model(path, tmp_path / "other", prompt="released")
    processor.chat_template = None
    processor.save_pretrained(path)
    (path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="must have a chat template for prompt=chat_template; got none"):
        export_model(path, tmp_path / "other", prompt="chat_template")
    assert not (tmp_path / "other").exists()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server(exported: Exported, tmp_path: Path) -> Iterator[str]:
    """The address of `transformers serve` with the exported model."""
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason='transformers serve needs pip install "transformers[serving]"')
    port, log = free_port(), tmp_path / "server.log"
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", exported.stock, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    with log.open("w") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            list(map(str, command)), cwd=tmp_path, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["plain", "dci-lora"], indirect=True)
def test_the_server_of_transformers_answers_as_the_evaluation_does(
    exported: Exported, server: str, tmp_path: Path
) -> None:
    import openai

    content = io.BytesIO()
    Image.open(exported.picture).save(content, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": address}}]
    with openai.OpenAI(api_key="none", base_url=server, max_retries=0, timeout=60) as client:
        reply = client.chat.completions.create(
            model=str(exported.stock), messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=LENGTH
        )
    answer = re.sub(r"\s+", " ", (reply.choices[0].message.content or "").strip())
    assert answer == re.sub(r"\s+", " ", own_answer(exported, tmp_path))
