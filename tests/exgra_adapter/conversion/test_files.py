"""What is refused, and with which sentence; output that appears whole or not at all; the command."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from exgra_adapter.conversion import command, output
from exgra_adapter.conversion.convert import convert
from exgra_adapter.conversion.tokenizer import open_tokenizer


def rewrite(original, change) -> None:
    """Writes the checkpoint again after a change of its tensors."""
    change(original.tensors)
    torch.save(original.tensors, original.folder / "pytorch_model.bin")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Harmful:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("echo harmed",)


def refused(original, tmp_path: Path, message: str, **options) -> None:
    options = {"vision_tower": original.tower} | options
    with pytest.raises(ValueError, match=message):
        convert(original.folder, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
    assert list(tmp_path.glob(".*")) == []


def test_a_missing_shard_is_named(make_original, tmp_path):
    original = make_original(shards=3)
    (original.folder / "pytorch_model-00002-of-00003.bin").unlink()
    refused(original, tmp_path, "all 3 shards .* got none called pytorch_model-00002-of-00003.bin. Copy")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_shard_that_does_not_fit_its_index_is_named(make_original, tmp_path, kind):
    original = make_original(shards=2, kind=kind)
    index = next(original.folder.glob("*.index.json"))
    content = json.loads(index.read_text())
    first = next(iter(content["weight_map"]))
    shard = content["weight_map"].pop(first)
    index.write_text(json.dumps(content))
    refused(original, tmp_path, f"{shard} must hold what the index says; got: {first} is not in the index")


def test_an_index_that_leads_out_of_its_folder_is_refused(make_original, tmp_path):
    original = make_original(shards=2)
    index = original.folder / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace("pytorch_model-00001", "../pytorch_model-00001"))
    refused(original, tmp_path, r"must name files of its own folder; got '\.\./pytorch_model-00001")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 99)])
def test_a_damaged_file_is_named(make_original, tmp_path, kind, damage):
    original = make_original(kind=kind)
    damage(next(original.folder.glob(f"*.{kind}")))
    refused(original, tmp_path, rf"\w+\.{kind} must be a complete weight file; got \d+ bytes .* copy it again")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(make_original, tmp_path, capfd, legacy):
    original = make_original()
    content = {**original.tensors, "extra": Harmful()}
    path = original.folder / "pytorch_model.bin"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    refused(original, tmp_path, r"got a pickle that asks for \w+\.system, which could run code.*safetensors")
    path.write_bytes(pickle.dumps(content))
    refused(original, tmp_path, r"pytorch_model.bin must (hold tensors only|be a complete weight file)")
    assert "harmed" not in capfd.readouterr().out


def test_files_of_the_old_format_are_read(make_original, tmp_path):
    original = make_original()
    torch.save(original.tensors, original.folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert torch.equal(written["language_model.lm_head.weight"], original.tensors["lm_head.weight"])


def test_tensors_that_share_memory_are_written_apart(make_original, tmp_path):
    original = make_original()
    tensors = original.tensors
    both = torch.stack([tensors["lm_head.weight"], tensors["model.embed_tokens.weight"]])
    rewrite(original, lambda t: t.update({"lm_head.weight": both[0], "model.embed_tokens.weight": both[1]}))
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    convert(tmp_path / "new", tmp_path / "back")
    back = torch.load(tmp_path / "back" / "pytorch_model.bin", weights_only=True)
    assert torch.equal(back["lm_head.weight"], both[0])
    assert (tmp_path / "back" / "pytorch_model.bin").stat().st_size < 2 * sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"model.layers.0.self_attn.q_proj.lora_A": torch.ones(2)}), r"lora_A is unknown"),
        (lambda t: t.update({"surprise": torch.ones(2)}), "surprise is unknown"),
        (lambda t: t.pop("model.norm.weight"), r"norm.weight is missing"),
        (lambda t: t.pop("lm_head.weight"), r"lm_head.weight is missing"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"norm.weight has shape \(3,\) instead of \(16,\)"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"][:-1].clone()}), r"lm_head.weight has shape"),
        (lambda t: t.pop("model.mm_projector.0.weight"), "must hold the projector"),
        (lambda t: t.pop("model.mm_projector.2.bias"), r"linear_2.bias is missing"),
        (lambda t: t.update({"model.mm_projector.4.weight": torch.ones(16, 16)}), r"mm_projector.4.weight is unknown"),
        (lambda t: t.update({"model.norm.weight": torch.ones(16, dtype=torch.int8)}), "got torch.int8"),
        (lambda t: t.update({"model.embed_tokens.weight": torch.ones(9, 16)}), r"tokens must have an embedding; got 9"),
        (lambda t: t.update({"note": "text"}), "must hold one dict of tensors"),
        (
            lambda t: t.update({"model.message_pass_node_features.conv1.lin_rel.weight": torch.ones(16, 16)}),
            "two graph convolutions .* is missing",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(make_original, tmp_path, change, message):
    original = make_original()
    rewrite(original, change)
    refused(original, tmp_path, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be a JSON object; got list"),
        ('{"model_type": "llama"}', "got model_type 'llama' .* merge them first"),
        ('{"model_type": "qwen2_vl", "vision_config": {}, "text_config": {}}', "got model_type 'qwen2_vl'"),
        ('{"model_type": "llava", "mm_hidden_size": 8}', "must give hidden_size as a positive number; got None"),
    ],
)
def test_other_models_are_refused(make_original, tmp_path, content, message):
    original = make_original()
    (original.folder / "config.json").write_text(content)
    refused(original, tmp_path, message)


def test_the_vision_tower_must_be_there_and_fit(make_original, tmp_path):
    original = make_original()
    refused(original, tmp_path, "it only, here 'openai/clip-vit-tiny'.*--vision-tower", vision_tower=None)
    refused(original, tmp_path, "must hold a CLIP model with config.json", vision_tower=str(tmp_path / "nowhere"))
    refused(original, tmp_path, "must be of type clip or clip_vision_model; got 'llava'", vision_tower=original.folder)
    path = original.tower / "preprocessor_config.json"
    path.write_text(path.read_text().replace("8", "9"))
    refused(original, tmp_path, "must make images of 8 pixels as the tower takes them; got .*9")
    path.unlink()
    weights = load_file(original.tower / "model.safetensors")
    weights.popitem()
    save_file(weights, original.tower / "model.safetensors", {"format": "pt"})
    refused(original, tmp_path, r"vision_tower.vision_model.\S+ is missing")


def test_an_absolute_tower_in_the_config_is_used(make_original, tmp_path):
    original = make_original()
    original.config["mm_vision_tower"] = str(original.tower)
    (original.folder / "config.json").write_text(json.dumps(original.config))
    convert(original.folder, tmp_path / "new")
    assert (tmp_path / "new" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("variant", "chosen", "message"),
    [
        ({"connector": "dci"}, None, "--dense-connector must say which; got None. Choose dci or sci"),
        ({"connector": "dci"}, "none", "--dense-connector must say which; got none"),
        ({}, "dci", "--dense-connector dci needs a projector of 24 input features; got 8. Leave the option out"),
        ({"connector": "sci"}, "sci", "SCI needs a vision tower of at least 15 layers; got 4"),
        ({"connector": "dci", "layers": 3}, "dci", "DCI needs a vision tower with an even number of layers; got 3"),
    ],
)
def test_the_dense_connector_is_never_guessed(make_original, tmp_path, variant, chosen, message):
    refused(make_original(**variant), tmp_path, message, dense_connector=chosen)


def test_what_cannot_be_done_is_said_before_anything_is_written(make_original, tmp_path):
    original = make_original()
    refused(original, tmp_path, "must not be in the format original already", to="original")
    refused(original, tmp_path, "must have safetensors files; got bin", weight_format="bin")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ValueError, match=r"must be a new or empty folder; got .*full"):
        convert(original.folder, tmp_path / "full", vision_tower=original.tower)
    (original.folder / "tokenizer.json").unlink()
    refused(original, tmp_path, "must hold tokenizer.json or tokenizer.model")


def test_an_empty_output_folder_is_filled(make_original, tmp_path):
    original = make_original()
    (tmp_path / "new").mkdir()
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    assert (tmp_path / "new" / "config.json").is_file()
    assert (tmp_path / "new").stat().st_mode == tmp_path.stat().st_mode


@pytest.mark.parametrize("stop", ["interrupt", "kill"])
def test_a_stopped_conversion_leaves_nothing_that_looks_finished(make_original, tmp_path, monkeypatch, caplog, stop):
    original = make_original()
    calls = []

    def save_then_stop(*arguments, **options):
        calls.append(save_file(*arguments, **options))
        if len(calls) == 2 and stop == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(output, "save_file", save_then_stop)
    run = {"source": original.folder, "output": tmp_path / "new", "vision_tower": original.tower, "shard_bytes": 3000}
    if stop == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            convert(**run)
        assert list(tmp_path.glob(".*")) == []
    else:
        child = os.fork()
        if child == 0:
            convert(**run)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert [path.name.endswith(".partial") for path in tmp_path.glob(".*")] == [True]
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    convert(**run)
    assert (tmp_path / "new" / "model.safetensors.index.json").is_file()
    assert ("is left from a run that was killed" in caplog.text) == (stop == "kill")


def run_command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["convert", *map(str, arguments)])
    return options.run(options)


def test_the_command_prints_the_report(make_original, tmp_path, capsys):
    original = make_original(message_passing=True, shards=2)
    arguments = (original.folder, tmp_path / "new", "--vision-tower", original.tower)
    assert run_command(*arguments, "--dry-run") == 0
    dry = capsys.readouterr().out
    assert not (tmp_path / "new").exists()
    assert "Nothing is written" in dry
    assert run_command(*arguments, "--shard-size", "0.00001", "--dtype", "fp16") == 0
    text = capsys.readouterr().out
    layers = next(line for line in text.splitlines() if "model.layers.N.self_attn.q_proj.weight" in line)
    assert layers.split() == [
        *("2", "x", "1.0", "kB", "copied", "model.layers.N.self_attn.q_proj.weight"),
        *("->", "language_model.model.layers.N.self_attn.q_proj.weight"),
    ]
    assert "pad_token_id: -1 ->" in text
    assert "dropped" in text
    assert "alignment.safetensors: message_passing.conv1.lin_rel.weight" in text
    assert len(list((tmp_path / "new").glob("model-*.safetensors"))) > 1
    assert run_command(tmp_path / "new", tmp_path / "back", "--weights", "safetensors") == 0


@pytest.mark.parametrize("bad", [["--shard-size", "0"], ["--dtype", "int8"], ["--to", "onnx"], []])
def test_wrong_usage_is_refused(capsys, bad):
    with pytest.raises(SystemExit) as stop:
        run_command(*(["a", "b", *bad] if bad else ["a"]))
    assert stop.value.code == 2
    capsys.readouterr()


def test_a_sentencepiece_tokenizer_becomes_a_fast_one(data_folder, tmp_path):
    pytest.importorskip("sentencepiece")
    source = data_folder / "tokenizers" / "tiny_llama_like_vqarad"
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((source / "tokenizer.model").read_bytes())
    added = {"[PAD]": 1024, "<im_patch>": 1025, "<im_start>": 1026, "<im_end>": 1027}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    loaded = open_tokenizer(folder)
    loaded.tokenizer.save_pretrained(tmp_path / "fast")
    # The class that a LLaVA folder is loaded with.
    (tmp_path / "fast" / "config.json").write_text('{"model_type": "llava"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "fast")
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in added} == added
    cases = json.loads((source / "encode_golden.json").read_text())
    # Only here special tokens are spelled, or two spaces open the text.
    cases = [case for case in cases if "</s>" not in case["text"] and not case["text"].startswith("  ")]
    for case in cases:
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["ids"], case["text"]
    assert len(cases) >= 5
    ids = tokenizer("the lesion?\n<im_start><im_patch><im_end>\n###")["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert pieces[pieces.index("<im_start>") - 1] == "?"
    assert pieces[pieces.index("<im_end>") + 1] == "▁"
    assert loaded.special_ids == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1024}


def test_missing_packages_for_sentencepiece_are_named(make_original, tmp_path, monkeypatch):
    original = make_original()
    (original.folder / "tokenizer.json").rename(original.folder / "tokenizer.model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(original, tmp_path, "got no sentencepiece and no protobuf. Install with `pip install sentencepiece")


@pytest.mark.slow
def test_memory_is_bounded_by_the_shards_not_by_the_model(make_original, tmp_path):
    """A model of 500 MB passes in shards of 32 MB, with its type changed on the way."""
    original = make_original(kind="safetensors")
    config = original.config | {"num_hidden_layers": 10, "intermediate_size": 2**18}
    tensors = {k: v for k, v in original.tensors.items() if not k.startswith("model.layers")}
    block = {k: v for k, v in original.tensors.items() if k.startswith("model.layers.0.") and "inv_freq" not in k}
    (original.folder / "model.safetensors").unlink()
    weight_map = {}
    for layer in range(10):
        wide = {
            name: torch.ones(*(2**18 if side == 32 else side for side in value.shape), dtype=torch.float16)
            for name, value in block.items()
        }
        part = {name.replace("layers.0", f"layers.{layer}"): value for name, value in wide.items()}
        part |= tensors if layer == 0 else {}
        save_file(part, original.folder / f"model-{layer}.safetensors", {"format": "pt"})
        weight_map |= dict.fromkeys(part, f"model-{layer}.safetensors")
    (original.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (original.folder / "config.json").write_text(json.dumps(config))
    code = (
        "import resource, sys\n"
        "from exgra_adapter.conversion.convert import convert\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "convert(sys.argv[1], sys.argv[2], vision_tower=sys.argv[3], dtype='fp32', shard_bytes=32 * 10**6)\n"
        "print(peak() - before)"
    )
    arguments = [sys.executable, "-c", code, str(original.folder), str(tmp_path / "new"), str(original.tower)]
    run = subprocess.run(arguments, check=True, capture_output=True, text=True)
    written = sum(path.stat().st_size for path in (tmp_path / "new").glob("*.safetensors"))
    assert written > 400e6
    assert int(run.stdout) < 0.25 * written
