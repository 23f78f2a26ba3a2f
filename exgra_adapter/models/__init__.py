"""Models and the two hooks that give the alignment its nodes."""

from exgra_adapter.models.load import load_model
from exgra_adapter.models.nodes import encode_text, pool_patches, tokenize_texts, visual_nodes
from exgra_adapter.models.tiny import build_tiny_model

__all__ = ["build_tiny_model", "encode_text", "load_model", "pool_patches", "tokenize_texts", "visual_nodes"]
