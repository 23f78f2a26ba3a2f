"""The LLaVA with a dense connector, with a timm vision tower, or with both, and what turns models into one another."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.activations import ACT2FN

from exgra_adapter.models.connector import (
    DenseConnector,
    DenseConnectorKind,
    ProjectorKind,
    connector_layers,
    extra_tokens,
    fold_weights,
    linear_from,
)

if TYPE_CHECKING:
    from exgra_adapter.models.towers import TimmTower


class ExgraLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """A `LlavaForConditionalGeneration` with a DCI or STI connector as projector, a timm vision tower, or both.

    `config.dense_connector` says which connector, `config.vision_config` which tower, so `save_pretrained` and
    `from_pretrained` keep both. Everything else, names of weights included, is that of the stock class. Other programs
    cannot load it: a folder for them is written by `export_model`.

    Args:
        config: A `LlavaConfig`; see `add_dense_connector` and `set_vision_tower` for how to get one.
    """

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        if has_timm_tower(config):
            # Importing timm takes a second, and few models need it.
            from exgra_adapter.models.towers import TimmTower

            self.model.vision_tower = TimmTower(config.vision_config)
        if _connector(config) in ("dci", "sti"):
            self.model.multi_modal_projector = DenseConnector(config)
        self.post_init()


def model_class(config: LlavaConfig) -> type[LlavaForConditionalGeneration]:
    """Says which class a LLaVA configuration needs: the stock one wherever that suffices."""
    special = _connector(config) in ("dci", "sti") or has_timm_tower(config)
    return ExgraLlavaForConditionalGeneration if special else LlavaForConditionalGeneration


def add_dense_connector(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, kind: DenseConnectorKind
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Gives a LLaVA with one vision layer a dense connector.

    The weights for H_-2 are those of the present projector and the weights for the other layers start at zero, so that
    with DCI and SCI the model computes what it did before; they receive gradients from the first step on. STI adds
    tokens, which pass through the present projector.

    Args:
        model: A model whose `vision_feature_layer` is -2. The result takes over its parts: do not use it afterwards.
        processor: Its processor.
        kind: `dci`, `sci` or `sti`. The layers are those of `connector_layers`.

    Returns:
        The model and a processor that counts the image's tokens accordingly. A stock class for SCI with a tower of its
        own kind, `ExgraLlavaForConditionalGeneration` otherwise.

    Raises:
        ValueError: The kind is unknown, or the model has several vision layers or a connector already.

    Example:
        >>> from exgra_adapter.models.tiny import build_tiny_model
        >>> model, processor = add_dense_connector(*build_tiny_model(["yes"], seed=0), "sti")
        >>> model.config.image_seq_length, model.config.vision_feature_layer
        (80, [-2, 0, 0])
    """
    config: Any = copy.deepcopy(model.config)
    layers = connector_layers(kind, config.vision_config.num_hidden_layers)
    _require_plain_weights("add_dense_connector", model)
    if _connector(config) is not None or config.vision_feature_layer != -2:
        raise ValueError(
            "add_dense_connector: model must have no dense connector yet and vision_feature_layer -2; got "
            f"{_connector(config)} and {config.vision_feature_layer}. Start from a model with one vision layer."
        )
    config.dense_connector, config.vision_feature_layer = kind, layers
    projector = model.model.multi_modal_projector
    weight: Tensor = projector.linear_1.weight
    if kind != "sti":
        zeros = torch.zeros_like(weight)
        projector.linear_1 = linear_from(torch.cat([weight, zeros, zeros], dim=1), projector.linear_1.bias)
    tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    tokens += config.vision_feature_select_strategy == "full"
    more = extra_tokens(kind, tokens)
    if more:
        config.image_seq_length = tokens + more
        processor = copy.copy(processor)
        processor.num_additional_image_tokens += more
    return _rebuild(model, config, projector), processor


def fold_dense_connector(model: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Turns a DCI connector into a stock projector that reads every vision layer; the model computes the same.

    Args:
        model: The model. The result takes over its parts: do not use it afterwards.

    Returns:
        For DCI a model with `vision_feature_layer` 0 .. L-1 and a first projector layer of `L * width` inputs, equal up
        to rounding in the weights' dtype: fold in float32. Without a connector, or with SCI, the model as it is.

    Raises:
        ValueError: The connector is STI, which stock LLaVA cannot express.
    """
    config: Any = copy.deepcopy(model.config)
    kind = _connector(config)
    if kind == "sti":
        raise ValueError(
            "fold_dense_connector: the connector must be dci or sci; got 'sti', whose additional tokens stock LLaVA "
            "does not have. Train with dci or sci to serve the model elsewhere, or load this one with load_model."
        )
    if kind != "dci":
        return model
    _require_plain_weights("fold_dense_connector", model)
    projector = model.model.multi_modal_projector
    weight = fold_weights(projector.linear_1.weight, config.vision_config.num_hidden_layers)
    projector.linear_1 = linear_from(weight, projector.linear_1.bias)
    del config.dense_connector
    return _rebuild(model, config, projector)


def replace_timm_tower(model: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Turns the timm tower of a model into a stock vision transformer; the model computes the same.

    Args:
        model: The model. The result takes over its parts: do not use it afterwards.

    Returns:
        A model with a `ViTModel` as vision tower; without a timm tower, the model as it is.

    Raises:
        ValueError: The tower has a part that `ViTModel` does not have.
    """
    if not has_timm_tower(model.config):
        return model
    from exgra_adapter.models.towers import to_vit

    _require_plain_weights("replace_timm_tower", model)
    tower = to_vit(model.model.vision_tower)
    config: Any = copy.deepcopy(model.config)
    config.vision_config = tower.config
    return _rebuild(model, config, model.model.multi_modal_projector, tower)


def set_projector(model: LlavaForConditionalGeneration, kind: ProjectorKind) -> None:
    """Replaces the projector by a fresh one of the given kind; one that is of this kind already stays as it is.

    A linear projector is kept as a stock two-layer projector with `projector_hidden_act="linear"` whose second layer is
    the identity, so every program that loads LLaVA loads it. That second layer is not trained: `unfreeze_projector`.

    Args:
        model: Changed in place: its projector's weights, drawn from the global random state, and its configuration.
        kind: `linear`, or `mlp`: two layers with GELU in between.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in get_args(ProjectorKind):
        raise ValueError(f"set_projector: kind must be one of linear, mlp; got {kind!r}. Choose one.")
    if kind == projector_kind(model):
        return
    _require_plain_weights("set_projector", model)
    projector: Any = model.model.multi_modal_projector
    model.config.projector_hidden_act = "linear" if kind == "linear" else "gelu"
    projector.act = ACT2FN[model.config.projector_hidden_act]
    projector.linear_1.reset_parameters()
    projector.linear_2.reset_parameters()
    if kind == "linear":
        with torch.no_grad():
            nn.init.eye_(projector.linear_2.weight)
            if projector.linear_2.bias is not None:
                nn.init.zeros_(projector.linear_2.bias)
    unfreeze_projector(model)


def projector_kind(model: LlavaForConditionalGeneration) -> ProjectorKind:
    """Says whether the projector is linear or an MLP.

    Example:
        >>> from exgra_adapter.models.tiny import build_tiny_model
        >>> projector_kind(build_tiny_model(["yes"], seed=0)[0])
        'mlp'
    """
    return "linear" if model.config.projector_hidden_act == "linear" else "mlp"


def unfreeze_projector(model: LlavaForConditionalGeneration) -> None:
    """Makes the projector trainable, except for the identity that stands as second layer of a linear projector."""
    projector = model.model.multi_modal_projector
    projector.requires_grad_(True)
    projector.linear_2.requires_grad_(projector_kind(model) == "mlp")


def set_vision_tower(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    tower: TimmTower,
    image_mean: tuple[float, float, float] | None = None,
    image_std: tuple[float, float, float] | None = None,
) -> tuple[ExgraLlavaForConditionalGeneration, LlavaProcessor]:
    """Replaces the vision tower of a LLaVA by a timm tower, with a fresh projector that fits it.

    Args:
        model: A model without dense connector (add that afterwards). The result takes over its language model: do not
            use it afterwards.
        processor: Its processor.
        tower: The tower, with its weights.
        image_mean: Means of the channels that the tower was trained with; None: those of CLIP, which BiomedCLIP shares.
        image_std: Standard deviations, likewise.

    Returns:
        The model, which projects H_-2, and a processor that prepares images for the tower.

    Raises:
        ValueError: The model has a dense connector.
    """
    from transformers import CLIPImageProcessorPil

    config: Any = copy.deepcopy(model.config)
    _require_plain_weights("set_vision_tower", model)
    if _connector(config) is not None:
        raise ValueError(
            f"set_vision_tower: model must have no dense connector; got {_connector(config)!r}. "
            "Replace the tower first, then add the connector."
        )
    vision = tower.config
    config.vision_config = vision
    config.vision_feature_layer, config.vision_feature_select_strategy = -2, "default"
    config.image_seq_length = (vision.image_size // vision.patch_size) ** 2
    processor = copy.copy(processor)
    normalisation = {"image_mean": image_mean, "image_std": image_std}
    processor.image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": vision.image_size},
        crop_size={"height": vision.image_size, "width": vision.image_size},
        **{name: list(values) for name, values in normalisation.items() if values is not None},
    )
    processor.patch_size = vision.patch_size
    processor.num_additional_image_tokens = 1
    processor.vision_feature_select_strategy = "default"
    projector = model.model.multi_modal_projector
    old = projector.linear_1
    projector.linear_1 = nn.Linear(
        vision.hidden_size, old.out_features, old.bias is not None, old.weight.device, old.weight.dtype
    )
    if projector_kind(model) == "mlp":
        projector.linear_2.reset_parameters()
    return _rebuild(model, config, projector, tower), processor


def has_timm_tower(config: LlavaConfig) -> bool:
    """Says whether the vision tower of a LLaVA is a timm model."""
    return config.vision_config.model_type == "timm_wrapper"


def _connector(config: LlavaConfig) -> DenseConnectorKind | None:
    return getattr(config, "dense_connector", None)


def _require_plain_weights(function: str, model: LlavaForConditionalGeneration) -> None:
    if not isinstance(model, LlavaForConditionalGeneration) or getattr(model, "is_quantized", False):
        raise ValueError(
            f"{function}: model must be a LlavaForConditionalGeneration with plain weights; got "
            f"{type(model).__name__}, quantized: {getattr(model, 'is_quantized', False)}. "
            "Change the model before it is quantized or gets adapters."
        )


def _rebuild(
    model: LlavaForConditionalGeneration, config: LlavaConfig, projector: nn.Module, tower: nn.Module | None = None
) -> Any:
    """Puts the parts of a model, and a new configuration, into the class that the configuration needs.

    Nothing is copied: on the meta device the new model costs no memory, and it then takes over the modules. Of the
    given projector the two linear layers are taken over.
    """
    with torch.device("meta"):
        result = model_class(config)(config)
    result.model.vision_tower = model.model.vision_tower if tower is None else tower
    result.model.language_model = model.model.language_model
    result.lm_head = model.lm_head
    for name in ("linear_1", "linear_2"):
        setattr(result.model.multi_modal_projector, name, getattr(projector, name))
    result.generation_config = model.generation_config
    return result.train(model.training)
