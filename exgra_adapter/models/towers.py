"""Vision towers from timm, such as that of BiomedCLIP, in the form that LLaVA reads."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TimmWrapperConfig, TimmWrapperModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

# Where the vision transformer stands in checkpoints of open_clip (BiomedCLIP) and of Hugging Face's timm wrapper.
_PREFIXES = ("visual.trunk.", "timm_model.", "")


def require_timm(function: str) -> Any:
    """Imports timm.

    Args:
        function: Who needs it, for the error text.

    Returns:
        The module.

    Raises:
        ValueError: timm, or the torchvision that it needs, cannot be imported.
    """
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # torchvision for another torch fails with a RuntimeError
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{function}: a timm vision tower must have timm and a torchvision that fits torch; got an error: "
            f"{reason}. Install both: pip install timm torchvision."
        ) from error


def timm_vision_config(architecture: str, **model_args: Any) -> TimmWrapperConfig:
    """Describes a timm vision transformer as `vision_config` of a LLaVA.

    Args:
        architecture: timm's name; BiomedCLIP's tower is a `vit_base_patch16_224`.
        **model_args: Passed to `timm.create_model`, such as `depth`, `img_size`; JSON values.

    Returns:
        A `TimmWrapperConfig` that also has `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `image_size` and
        `patch_size`, which LLaVA and the dense connectors read.

    Raises:
        ValueError: timm is missing, has no such architecture, or it is no vision transformer with a class token on
            square images.
    """
    timm = require_timm("timm_vision_config")
    if not timm.is_model(architecture):
        raise ValueError(
            f"timm_vision_config: architecture must be one that timm {timm.__version__} knows; got {architecture!r}. "
            "See timm.list_models('vit_*')."
        )
    with torch.device("meta"):
        vit = timm.create_model(architecture, pretrained=False, num_classes=0, **model_args)
    _require_vision_transformer("timm_vision_config", architecture, vit)
    return TimmWrapperConfig(
        architecture=architecture,
        model_args=model_args or None,
        do_pooling=False,
        hidden_size=vit.embed_dim,
        num_hidden_layers=len(vit.blocks),
        num_attention_heads=vit.blocks[0].attn.num_heads,
        image_size=vit.patch_embed.img_size[0],
        patch_size=vit.patch_embed.patch_size[0],
    )


class TimmTower(TimmWrapperModel):
    """A `TimmWrapperModel` whose hidden states have the form of CLIP's.

    transformers' wrapper returns the hidden states as `(n, width, rows, columns)`, without class token and without the
    embeddings; LLaVA reads `(n, 1 + patches, width)` and drops the class token itself. Names of weights are those of
    the wrapper.

    Args:
        config: The result of `timm_vision_config`.

    Raises:
        ValueError: timm is missing, or the architecture is no vision transformer with a class token.
    """

    _no_split_modules = ["TimmTower"]  # noqa: RUF012 - as in the base class

    def __init__(self, config: TimmWrapperConfig) -> None:
        require_timm("TimmTower")
        super().__init__(config)
        _require_vision_transformer("TimmTower", config.architecture, self.timm_model)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Computes all hidden states.

        Args:
            pixel_values: `(n, 3, height, width)`.
            **kwargs: What LLaVA passes to every tower; all hidden states are returned in any case.

        Returns:
            `hidden_states`: H_0 (what enters the first block) to H_L (what leaves the last), each
            `(n, 1 + patches, width)` with the class token first; `last_hidden_state`: H_L behind the final norm.
        """
        vit: Any = self.timm_model
        states: list[Tensor] = []
        hooks = [block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])) for block in vit.blocks]
        hooks.append(vit.blocks[-1].register_forward_hook(lambda _, __, output: states.append(output)))
        try:
            last = vit.forward_features(pixel_values.to(self.device, self.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        # Registers stand between class token and patches; LLaVA knows of one prefix token only.
        prefix = vit.num_prefix_tokens
        kept = [torch.cat([state[:, :1], state[:, prefix:]], dim=1) if prefix > 1 else state for state in states]
        return BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=tuple(kept))


def read_tower_weights(tower: TimmTower, path: Path) -> None:
    """Reads the weights of a tower from a checkpoint of open_clip (BiomedCLIP's), of timm or of Hugging Face.

    Args:
        tower: Receives the weights, in place.
        path: A `.safetensors` file, or a PyTorch file with tensors alone, which is read with `weights_only=True`.
            Tensors of other parts of the checkpoint (text tower, heads) are left out.

    Raises:
        ValueError: The file lacks a weight or has one of another shape.
    """
    path = Path(path)
    state: dict[str, Tensor] = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    )
    own = tower.timm_model.state_dict()
    prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(f"{prefix}blocks.") for name in state)), "")
    found = {name: state[f"{prefix}{name}"] for name in own if f"{prefix}{name}" in state}
    wrong = next((name for name in own if name not in found or found[name].shape != own[name].shape), None)
    if wrong is not None:
        shape = tuple(found[wrong].shape) if wrong in found else None
        raise ValueError(
            f"read_tower_weights: {path} must hold {wrong} of shape {tuple(own[wrong].shape)}; got {shape}. "
            "Give the checkpoint of this architecture."
        )
    tower.timm_model.load_state_dict(found)


def _require_vision_transformer(function: str, architecture: str, model: Any) -> None:
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or getattr(model, "cls_token", None) is None:
        raise ValueError(
            f"{function}: architecture must be a timm vision transformer with a class token; got {architecture!r}. "
            "Use one such as vit_base_patch16_224."
        )
    sides = (*model.patch_embed.img_size, *model.patch_embed.patch_size)
    if sides[0] != sides[1] or sides[2] != sides[3]:
        raise ValueError(
            f"{function}: images and patches must be square; got images of {sides[0]} x {sides[1]} and patches of "
            f"{sides[2]} x {sides[3]}. Use another img_size."
        )


def to_vit(tower: TimmTower) -> Any:
    """Converts a timm tower to the stock `ViTModel` with the same hidden states, which needs neither timm nor us.

    Args:
        tower: A plain vision transformer: class token, learned positions, pre-norm blocks with GELU, no registers, no
            layer scale.

    Returns:
        A `ViTModel` with copies of the weights; its pooler, which LLaVA does not use, has zeros.

    Raises:
        ValueError: The architecture has a part that `ViTModel` does not have.
    """
    from transformers import ViTConfig, ViTModel

    vit: Any = tower.timm_model
    config, first = tower.config, vit.blocks[0]
    plain = (
        vit.num_prefix_tokens == 1
        and vit.pos_embed is not None
        and vit.pos_embed.shape[1] == 1 + (config.image_size // config.patch_size) ** 2
        and isinstance(first.mlp.act, nn.GELU)
        and first.mlp.act.approximate == "none"
        and all(isinstance(part, nn.Identity) for part in (vit.norm_pre, vit.patch_embed.norm))
    )
    result = ViTModel(
        ViTConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=first.mlp.fc1.out_features,
            layer_norm_eps=first.norm1.eps,
            image_size=config.image_size,
            patch_size=config.patch_size,
            qkv_bias=first.attn.qkv.bias is not None,
        )
    )
    state = {name: torch.zeros_like(value) for name, value in result.state_dict().items() if "pooler" in name}
    state |= {"layernorm.weight": torch.ones(config.hidden_size), "layernorm.bias": torch.zeros(config.hidden_size)}
    state |= dict(_vit_weights(vit.state_dict(), set(result.state_dict())))
    expected = {name: value.shape for name, value in result.state_dict().items()}
    if not plain or {name: value.shape for name, value in state.items()} != expected:
        raise ValueError(
            f"to_vit: tower must be a plain vision transformer, such as vit_base_patch16_224; got "
            f"{config.architecture!r} with {config.model_args}. This model can be used with load_model, "
            "but not as a stock one."
        )
    result.load_state_dict(state)
    return result.to(device=tower.device, dtype=tower.dtype).train(tower.training)


# timm's names of parts beside those of ViTModel: of transformers 5.10 and later, and of earlier versions.
_EMBEDDINGS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_BLOCK = {
    "norm1": ("layernorm_before", "layernorm_before"),
    "norm2": ("layernorm_after", "layernorm_after"),
    "attn.q": ("attention.q_proj", "attention.attention.query"),
    "attn.k": ("attention.k_proj", "attention.attention.key"),
    "attn.v": ("attention.v_proj", "attention.attention.value"),
    "attn.proj": ("attention.o_proj", "attention.output.dense"),
    "mlp.fc1": ("mlp.fc1", "intermediate.dense"),
    "mlp.fc2": ("mlp.fc2", "output.dense"),
}


def _vit_weights(state: dict[str, Tensor], names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of a timm vision transformer under the names of `ViTModel`, of which `names` are given."""
    earlier = any(name.startswith("encoder.") for name in names)
    for name, value in state.items():
        part, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            yield (f"{_EMBEDDINGS[part]}.{kind}" if part in _EMBEDDINGS else _EMBEDDINGS.get(name, name)), value
            continue
        _, index, part = part.split(".", 2)
        layer = f"encoder.layer.{index}" if earlier else f"layers.{index}"
        if part == "attn.qkv":
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                yield f"{layer}.{_BLOCK[f'attn.{letter}'][earlier]}.{kind}", third
        else:
            yield f"{layer}.{_BLOCK[part][earlier] if part in _BLOCK else part}.{kind}", value
