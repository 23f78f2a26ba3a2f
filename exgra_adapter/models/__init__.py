"""Models, what loads, changes and exports them, and the hooks that give the alignment its nodes.

Vision towers from timm are in `exgra_adapter.models.towers`, which is imported where one is used.
"""

from exgra_adapter.models.connector import DenseConnector, connector_layers
from exgra_adapter.models.export import ExportReport, export_model
from exgra_adapter.models.llava import (
    ExgraLlavaForConditionalGeneration,
    add_dense_connector,
    fold_dense_connector,
    projector_kind,
    replace_timm_tower,
    set_projector,
    set_vision_tower,
    unfreeze_projector,
)
from exgra_adapter.models.load import load_model
from exgra_adapter.models.nodes import DecoderTap, encode_packed, encode_text, text_layout, tokenize_texts, visual_nodes
from exgra_adapter.models.packing import PackedTexts, pack_texts
from exgra_adapter.models.tiny import build_tiny_model

__all__ = [
    "DecoderTap",
    "DenseConnector",
    "ExgraLlavaForConditionalGeneration",
    "ExportReport",
    "PackedTexts",
    "add_dense_connector",
    "build_tiny_model",
    "connector_layers",
    "encode_packed",
    "encode_text",
    "export_model",
    "fold_dense_connector",
    "load_model",
    "pack_texts",
    "projector_kind",
    "replace_timm_tower",
    "set_projector",
    "set_vision_tower",
    "text_layout",
    "tokenize_texts",
    "unfreeze_projector",
    "visual_nodes",
]
