"""The conversion as a function."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from exgra_adapter.atomic import complete_folder, require_new_folder, write_json
from exgra_adapter.conversion.names import REPORT_FILE, Direction, Options, read_config
from exgra_adapter.conversion.output import WeightFormat, write_weights
from exgra_adapter.conversion.plan import Plan
from exgra_adapter.conversion.report import report_json
from exgra_adapter.conversion.to_hugging_face import plan_to_hugging_face
from exgra_adapter.conversion.to_original import plan_to_original
from exgra_adapter.weight_files import writing_weights

DtypeName = Literal["keep", "fp32", "bf16", "fp16"]
_DTYPES = {"keep": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def convert(
    source: Path,
    output: Path,
    *,
    to: Direction | None = None,
    vision_tower: str | None = None,
    dense_connector: Literal["none", "dci", "sci"] | None = None,
    dtype: DtypeName = "keep",
    weight_format: WeightFormat | None = None,
    shard_bytes: int = 2 * 10**9,
    dry_run: bool = False,
) -> Plan:
    """Converts a checkpoint between the original LLaVA format and Hugging Face `LlavaForConditionalGeneration`.

    Tensors pass one shard at a time. The output appears when it is complete; a conversion that is stopped, even
    killed, leaves no folder of that name.

    Args:
        source: The checkpoint, in either format.
        output: The folder to make; it must not exist, or be empty.
        to: The format of the output; None takes the one that the source does not have.
        vision_tower: To Hugging Face: folder of the CLIP model; needed unless config.json names an existing one by an
            absolute path. To the original: what `mm_vision_tower` shall say.
        dense_connector: To Hugging Face: which dense connector the source was trained with; needed where it has one.
        dtype: The type of all tensors, `keep` for each one's own.
        weight_format: `safetensors`, or `bin` (to the original only, and the default there: its code reads no other).
        shard_bytes: Largest weight file.
        dry_run: Plan and check, but write nothing.

    Returns:
        What was done, or would be. `conversion.json` in the output says the same.

    Raises:
        ValueError: The source is not a LLaVA model, not complete, damaged, unsafe, or does not fit the options.
        OSError: The disk is full.
    """
    source, output = Path(source), Path(output)
    kind, config = read_config(source)
    direction: Direction = "original" if kind == "hugging-face" else "hugging-face"
    if to not in (None, direction):
        raise ValueError(f"convert: source must not be in the format {to} already; got {source}. Nothing is to do.")
    if weight_format == "bin" and direction == "hugging-face":
        raise ValueError("convert: a Hugging Face folder must have safetensors files; got bin. Leave the option out.")
    if shard_bytes < 1:
        raise ValueError(f"convert: shard_bytes must be at least 1; got {shard_bytes}. Use the default.")
    require_new_folder(output, "convert")
    options = Options(vision_tower, dense_connector, _DTYPES[dtype])
    if direction == "hugging-face":
        plan = plan_to_hugging_face(source, config, options)
    else:
        plan = plan_to_original(source, options)
    if dry_run:
        return plan
    default: WeightFormat = "bin" if direction == "original" else "safetensors"
    with complete_folder(output, "convert") as folder, writing_weights(folder, "convert"):
        write_weights(folder, plan.transfers, weight_format or default, shard_bytes)
        plan.write_companions(folder)
        write_json(folder / REPORT_FILE, report_json(plan))
    return plan
