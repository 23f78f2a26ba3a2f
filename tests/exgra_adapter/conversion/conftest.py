"""Tiny checkpoints in the original format, and the model they describe, put together without the converter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WIDTH, VISION_WIDTH, SIDE, PATCH = 16, 8, 8, 4
IMAGE_TOKENS = ("[PAD]", "<im_patch>", "<im_start>", "<im_end>")


def _save_sharded(folder: Path, tensors: dict[str, Tensor], shards: int, kind: str) -> None:
    """Writes weights the way each library does it, without the converter's writer."""
    stem = {"bin": "pytorch_model", "safetensors": "model"}[kind]
    save = {"bin": torch.save, "safetensors": lambda part, path: save_file(part, path, {"format": "pt"})}[kind]
    names = list(tensors)
    if shards == 1:
        save(tensors, folder / f"{stem}.{kind}")
        return
    weight_map = {}
    for index in range(shards):
        file = f"{stem}-{index + 1:05d}-of-{shards:05d}.{kind}"
        part = {name: tensors[name] for name in names[index::shards]}
        save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(content))


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(["is there a lesion in the left lung?", "yes, no", "###"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=2048
    )
    # Not special and without a role, as the original leaves them.
    fast.add_tokens(list(IMAGE_TOKENS))
    return fast


@dataclass
class Original:
    """A checkpoint in the original format, and everything that the test knows of it.

    Attributes:
        folder: Where it lies.
        tower: Folder of its vision tower.
        tensors: What is in its weight files.
        config: Its config.json.
        vision: The tower as a model.
        tokenizer: The tokenizer.
        connector: Its dense connector.
    """

    folder: Path
    tower: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    vision: CLIPVisionModel
    tokenizer: PreTrainedTokenizerFast
    connector: str
    settings: dict[str, Any] = field(default_factory=dict)

    def logits(self, input_ids: Tensor, pixel_values: Tensor, image_token: int) -> Tensor:
        """Computes what the original computes, in float32, from the tensors as they are in its files."""
        state = {name: value.float() for name, value in self.tensors.items()}
        language = LlamaForCausalLM(
            LlamaConfig(
                **{k: v for k, v in self.config.items() if k.startswith(("hidden_size", "num_", "intermediate"))},
                rms_norm_eps=self.config["rms_norm_eps"],
                vocab_size=state["model.embed_tokens.weight"].shape[0],
            )
        ).eval()
        parts = ("model.embed_tokens", "model.layers", "model.norm", "lm_head")
        wanted = {k: v for k, v in state.items() if k.startswith(parts) and not k.endswith("inv_freq")}
        wanted.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
        language.load_state_dict(wanted)
        with torch.no_grad():
            hidden = self.vision(pixel_values, output_hidden_states=True).hidden_states
            layers = len(hidden) - 1
            picked = {
                "none": [hidden[-2]],
                "sci": [hidden[-2], hidden[min(7, layers)], hidden[min(15, layers)]],
                "dci": [
                    hidden[-2],
                    torch.stack(hidden[: layers // 2]).mean(0),
                    torch.stack(hidden[layers // 2 : layers]).mean(0),
                ],
            }[self.connector]
            features = torch.cat(picked, dim=-1)[:, 1:]
            if "model.mm_projector.weight" in state:
                images = F.linear(features, state["model.mm_projector.weight"], state["model.mm_projector.bias"])
            else:
                first = F.linear(features, state["model.mm_projector.0.weight"], state["model.mm_projector.0.bias"])
                images = F.linear(
                    F.gelu(first), state["model.mm_projector.2.weight"], state["model.mm_projector.2.bias"]
                )
            embeddings = state["model.embed_tokens.weight"][input_ids].clone()
            embeddings[input_ids == image_token] = images.flatten(0, 1)
            return language(inputs_embeds=embeddings).logits


Make = Callable[..., Original]


@pytest.fixture
def make_original(tmp_path: Path) -> Make:
    """Writes a checkpoint; the arguments say in which variant of the format."""

    def make(
        name: str = "original",
        *,
        dtype: torch.dtype = torch.float32,
        connector: str = "none",
        projector: str = "mlp",
        layers: int = 4,
        message_passing: bool = False,
        vision_prefix: str | None = None,
        shards: int = 1,
        kind: str = "bin",
        tied: bool = False,
        extra_rows: int = 0,
        clip: str = "vision",
        seed: int = 0,
    ) -> Original:
        folder, tower = tmp_path / name, tmp_path / f"{name}-tower"
        folder.mkdir()
        tokenizer = _tokenizer()
        rows = len(tokenizer) + extra_rows
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vision_config = CLIPVisionConfig(
                hidden_size=VISION_WIDTH,
                intermediate_size=16,
                num_hidden_layers=layers,
                num_attention_heads=2,
                image_size=SIDE,
                patch_size=PATCH,
            )
            vision = CLIPVisionModel(vision_config).eval()
            for parameter in vision.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
            vision.save_pretrained(tower)
            if clip != "vision":
                _write_whole_clip(tower, vision, clip)
            size = {"height": SIDE, "width": SIDE}
            CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(tower)
            tensors = _language_tensors(rows, tied)
            features = VISION_WIDTH * (1 if connector == "none" else 3)
            shapes = {"weight": (WIDTH, features), "bias": (WIDTH,)}
            if projector == "mlp":
                shapes = {f"0.{part}": shape for part, shape in shapes.items()}
                shapes |= {"2.weight": (WIDTH, WIDTH), "2.bias": (WIDTH,)}
            tensors |= {f"model.mm_projector.{part}": torch.randn(shape) for part, shape in shapes.items()}
            if message_passing:
                for layer in (1, 2):
                    start = f"model.message_pass_node_features.conv{layer}"
                    tensors[f"{start}.lin_rel.weight"] = torch.randn(WIDTH, WIDTH)
                    tensors[f"{start}.lin_rel.bias"] = torch.randn(WIDTH)
                    tensors[f"{start}.lin_root.weight"] = torch.randn(WIDTH, WIDTH)
        if vision_prefix is not None:
            own = {key.removeprefix("vision_model."): value for key, value in vision.state_dict().items()}
            tensors |= {vision_prefix + key: value.clone() for key, value in own.items()}
        tensors = {key: value.to(dtype).contiguous() for key, value in tensors.items()}
        _save_sharded(folder, tensors, shards, kind)
        config = {
            "architectures": ["LlavaLlamaForCausalLM"],
            "model_type": "llava",
            "hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "max_sequence_length": 2048,
            "vocab_size": 7,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": -1,
            "mm_hidden_size": VISION_WIDTH,
            "mm_use_im_start_end": True,
            "mm_vision_select_layer": -2,
            "mm_vision_tower": "openai/clip-vit-tiny",
            "use_mm_proj": True,
            "sep_image_conv_front": False,
            "tie_word_embeddings": tied,
        }
        (folder / "config.json").write_text(json.dumps(config))
        tokenizer.save_pretrained(folder)
        return Original(folder, tower, tensors, config, vision, tokenizer, connector)

    return make


def _language_tensors(rows: int, tied: bool) -> dict[str, Tensor]:
    tensors = {"model.embed_tokens.weight": torch.randn(rows, WIDTH), "model.norm.weight": torch.rand(WIDTH) + 0.5}
    for layer in range(2):
        start = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{start}.self_attn.{part}.weight"] = torch.randn(WIDTH, WIDTH) / 4
        tensors[f"{start}.self_attn.rotary_emb.inv_freq"] = 1e4 ** -(torch.arange(0, 8, 2) / 8)
        tensors[f"{start}.mlp.gate_proj.weight"] = torch.randn(32, WIDTH) / 4
        tensors[f"{start}.mlp.up_proj.weight"] = torch.randn(32, WIDTH) / 4
        tensors[f"{start}.mlp.down_proj.weight"] = torch.randn(WIDTH, 32) / 4
        tensors[f"{start}.input_layernorm.weight"] = torch.rand(WIDTH) + 0.5
        tensors[f"{start}.post_attention_layernorm.weight"] = torch.rand(WIDTH) + 0.5
    if not tied:
        tensors["lm_head.weight"] = torch.randn(rows, WIDTH)
    return tensors


def _write_whole_clip(folder: Path, vision: CLIPVisionModel, kind: str) -> None:
    """Replaces the tower's files by those of a whole CLIP model: as published, `.bin` and `vision_model.` in front."""
    text = CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    whole = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.config.to_dict()))
    whole.config.save_pretrained(folder)
    own = {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in vision.state_dict().items()}
    own["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    others = {k: v for k, v in whole.state_dict().items() if not k.startswith("vision_model.")}
    (folder / "model.safetensors").unlink()
    _save_sharded(folder, {k: v.detach().clone() for k, v in (own | others).items()}, 1, kind)
