"""Export to stock Hugging Face folders, and what `load_model` loads beside plain LLaVA folders."""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.utils.import_utils import is_bitsandbytes_available

from exgra_adapter.export_command import add_parser
from exgra_adapter.models import (
    ExgraLlavaForConditionalGeneration,
    add_dense_connector,
    build_tiny_model,
    export_model,
    load_model,
    set_projector,
)
from exgra_adapter.prompts import question_prompt

Tiny = tuple[LlavaForConditionalGeneration, LlavaProcessor]

# Another program: it knows transformers, not this package.
_FOREIGN = """
import sys
sys.modules["exgra_adapter"] = None
import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, prompt, output = sys.argv[1:]
torch.set_num_threads(1)
model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
processor = AutoProcessor.from_pretrained(folder, backend="pil")
pixels = np.random.default_rng(1).integers(0, 256, (80, 60, 3), dtype=np.uint8)
inputs = processor(text=prompt, images=Image.fromarray(pixels), return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
np.savez(output, logits=model(**inputs).logits.detach().numpy(), answer=answer.numpy())
"""


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return build_tiny_model(["Is there a lesion?", "yes, on the left"], seed=0)


def inputs_of(processor: LlavaProcessor) -> dict[str, torch.Tensor]:
    pixels = np.random.default_rng(1).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    return processor(text=question_prompt("Is there a lesion?"), images=Image.fromarray(pixels), return_tensors="pt")


def logits(model: torch.nn.Module, processor: LlavaProcessor) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(processor)).logits


def trained(model: torch.nn.Module) -> None:
    """Changes every trainable weight, as training would: fresh adapters and connectors change nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def save(folder: Path, model: torch.nn.Module, processor: LlavaProcessor) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def adapt(model: LlavaForConditionalGeneration) -> PeftModel:
    settings = LoraConfig(
        r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)", modules_to_save=["multi_modal_projector"]
    )
    return get_peft_model(model, settings)


@pytest.fixture(scope="module")
def adapted(tiny, tmp_path_factory) -> tuple[Path, torch.Tensor]:
    """The folder of a trained LoRA adapter on a model with a DCI connector, and the logits of the trained model."""
    folder = tmp_path_factory.mktemp("lora")
    model, processor = add_dense_connector(*copy.deepcopy(tiny), "dci")
    save(folder / "base", model, processor)
    model = adapt(load_model(folder / "base")[0])
    trained(model)
    model.eval().save_pretrained(folder / "adapter")
    (folder / "adapter" / "alignment.safetensors").write_bytes(b"parameters")
    (folder / "adapter" / "README.md").write_text("# Card")
    return folder / "adapter", logits(model, processor)


def test_another_program_loads_the_export(adapted, tiny, tmp_path):
    path, expected = adapted
    report = export_model(path, tmp_path / "stock")
    assert report.changes == ("merged the adapter", "folded the DCI connector")
    assert report.largest_difference <= 1e-5 < report.largest_logit
    assert sorted(file.name for file in tmp_path.iterdir()) == ["stock"], "nothing hidden is left"
    names = {file.name for file in (tmp_path / "stock").iterdir()}
    assert {"model.safetensors", "generation_config.json", "processor_config.json"} <= names
    assert (tmp_path / "stock" / "alignment.safetensors").read_bytes() == b"parameters"
    assert (tmp_path / "stock" / "README.md").read_text() == "# Card"
    text = (tmp_path / "stock" / "config.json").read_text()
    assert str(path.parent) not in text
    assert "dense_connector" not in text
    prompt, output = question_prompt("Is there a lesion?"), tmp_path / "found.npz"
    command = [sys.executable, "-c", _FOREIGN, str(tmp_path / "stock"), prompt, str(output)]
    subprocess.run(command, check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = np.load(output)
    torch.testing.assert_close(torch.from_numpy(found["logits"]), expected, rtol=0, atol=1e-5)
    model, processor = load_model(path)
    answer = model.generate(**inputs_of(processor), max_new_tokens=4, do_sample=False)
    assert np.array_equal(found["answer"], answer.numpy())


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_the_command_writes_the_wanted_numbers(tiny, tmp_path, capsys, name, dtype):
    path = save(tmp_path / "model", *add_dense_connector(*copy.deepcopy(tiny), "sci"))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["export", str(path), str(tmp_path / "stock"), "--dtype", name])
    assert options.run(options) == 0
    assert {value.dtype for value in load_file(tmp_path / "stock" / "model.safetensors").values()} == {dtype}
    assert AutoConfig.from_pretrained(tmp_path / "stock").dtype == dtype
    output = capsys.readouterr().out
    assert "Largest difference of the logits: " in output
    assert output.endswith(f"Model folder: {tmp_path / 'stock'}\n")


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(tiny, tmp_path):
    path = save(tmp_path / "sti", *add_dense_connector(*copy.deepcopy(tiny), "sti"))
    with pytest.raises(ValueError, match=r"must be dci or sci; got 'sti'"):
        export_model(path, tmp_path / "stock")
    with pytest.raises(ValueError, match=r"dtype must be float32, bfloat16 or float16; got torch.float64"):
        export_model(path, tmp_path / "stock", torch.float64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"output must be a new or empty folder; got .*full"):
        export_model(path, tmp_path / "full")
    model, processor = copy.deepcopy(tiny)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.fill_(1e5)
    save(tmp_path / "large", model, processor)
    with pytest.raises(ValueError, match=r"must compute the same .* Use float32 or bfloat16 for weights too large"):
        export_model(tmp_path / "large", tmp_path / "stock", torch.float16)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["full", "large", "sti"]


def test_an_adapter_is_merged_or_kept(adapted):
    path, expected = adapted
    merged, processor = load_model(path)
    assert isinstance(merged, ExgraLlavaForConditionalGeneration)
    torch.testing.assert_close(logits(merged, processor), expected, rtol=1e-4, atol=1e-5)
    kept, _ = load_model(path, merge=False)
    assert isinstance(kept, PeftModel)
    assert torch.equal(logits(kept, processor), expected)


def test_an_adapter_lies_beside_its_base_or_names_it(adapted, tmp_path):
    path, expected = adapted
    together = tmp_path / "together"
    together.mkdir()
    for file in [*path.iterdir(), *(path.parent / "base").iterdir()]:
        (together / file.name).symlink_to(file)
    model, processor = load_model(together)
    torch.testing.assert_close(logits(model, processor), expected, rtol=1e-4, atol=1e-5)
    apart = tmp_path / "apart"
    apart.mkdir()
    (tmp_path / "base").symlink_to(path.parent / "base")
    for file in path.iterdir():
        (apart / file.name).symlink_to(file)
    settings = json.loads((path / "adapter_config.json").read_text())
    for name, error in (
        ("../base", None),
        ("somebody/model", "must be a local folder; got 'somebody/model'"),
        (None, "TypeError"),
    ):
        (apart / "adapter_config.json").unlink()
        (apart / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": name}))
        if error is None:
            assert torch.equal(logits(load_model(apart)[0], processor), logits(model, processor))
        else:
            with pytest.raises(ValueError, match=error):
                load_model(apart)


def test_an_adapter_of_another_model_is_refused(adapted, tmp_path):
    path = tmp_path / "adapter"
    path.mkdir()
    for file in adapted[0].iterdir():
        (path / file.name).symlink_to(file)
    state = load_file(path / "adapter_model.safetensors")
    (path / "adapter_model.safetensors").unlink()
    save_file(
        {name: value for name, value in state.items() if "layers.2" not in name}, path / "adapter_model.safetensors"
    )
    with pytest.raises(ValueError, match=r"the adapter in .* must fit its base model; got Found missing adapter keys"):
        load_model(path)


def test_weights_that_do_not_fit_the_configuration_are_refused(tiny, tmp_path):
    """Trap 11: a projector is never drawn at random, nor dropped, because its file and its configuration differ."""
    path = save(tmp_path, *tiny)
    state = load_file(path / "model.safetensors")
    name = next(name for name in state if name.endswith("multi_modal_projector.linear_2.weight"))
    save_file({key: value for key, value in state.items() if key != name}, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"got a folder that lacks model\.multi_modal_projector\.linear_2\.weight"):
        load_model(path)
    more = {name.replace("linear_2", "linear_3"): torch.zeros(2)}
    save_file(state | more, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has .*linear_3\.weight, which its configuration does not know"):
        load_model(path)
    save_file(state | {name: torch.zeros(2, 2)}, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"must be a complete model folder; got an error: .*mismatch"):
        load_model(path)
    (path / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14"}')
    with pytest.raises(ValueError, match=r"got one of the original LLaVA format\. Convert it first: exgra-med convert"):
        load_model(path)


def test_dtype_and_attention_are_those_asked_for(tiny, tmp_path):
    path = save(tmp_path, *tiny)
    assert load_model(path)[0].dtype == torch.float32
    model, processor = load_model(path, dtype=torch.bfloat16, attention="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config.text_config._attn_implementation == "eager"
    inputs = inputs_of(processor)
    assert model(**inputs | {"pixel_values": inputs["pixel_values"].bfloat16()}).logits.isfinite().all()


def test_images_are_prepared_with_pillow(tiny, tmp_path):
    """Wherever torchvision is installed, a loaded model must see the pixels that it saw in training."""
    _, processor = load_model(save(tmp_path, *tiny))
    assert type(processor.image_processor) is type(tiny[1].image_processor)


@pytest.mark.skipif(not is_bitsandbytes_available(), reason="bitsandbytes is not installed")
@pytest.mark.parametrize(("quantization", "difference"), [("4bit", 0.3), ("8bit", 0.05)])
def test_only_the_language_model_is_quantized(tiny, adapted, tmp_path, quantization, difference):
    import bitsandbytes

    quantized = bitsandbytes.nn.Linear4bit if quantization == "4bit" else bitsandbytes.nn.Linear8bitLt
    path = save(tmp_path, *tiny)
    model, processor = load_model(path, dtype=torch.bfloat16, quantization=quantization)
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert all((kind is quantized) == (".language_model." in name) for name, kind in kinds.items())
    assert any(kind is quantized for kind in kinds.values())
    expected = logits(*tiny)
    assert float((logits(model, processor) - expected).abs().max()) < difference * float(expected.abs().max())
    with pytest.raises(ValueError, match="model must be a LlavaForConditionalGeneration with plain weights"):
        set_projector(model, "linear")
    kept, _ = load_model(adapted[0], dtype=torch.bfloat16, quantization=quantization)
    assert isinstance(kept, PeftModel), "an adapter is not rounded into quantized weights"
    with pytest.raises(ValueError, match="merge must be False with quantized weights"):
        load_model(adapted[0], quantization=quantization, merge=True)


def test_wrong_quantization_is_refused(tiny, tmp_path, monkeypatch):
    path = save(tmp_path, *tiny)
    with pytest.raises(ValueError, match="quantization must be 4bit or 8bit; got '2bit'"):
        load_model(path, quantization="2bit")
    monkeypatch.setattr("exgra_adapter.models.load.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ValueError, match="must have the package bitsandbytes; got '4bit' without it"):
        load_model(path, quantization="4bit")


def test_another_family_is_loaded(tiny, tmp_path):
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {"hidden_size": 32, "out_hidden_size": 32, "depth": 2, "num_heads": 2, "intermediate_size": 64}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    save(tmp_path, model, tiny[1])
    loaded, _ = load_model(tmp_path)
    assert isinstance(loaded, Qwen2_5_VLForConditionalGeneration)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
