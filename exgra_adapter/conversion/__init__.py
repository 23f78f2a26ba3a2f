"""Checkpoints of the original LLaVA format and those of Hugging Face `LlavaForConditionalGeneration`, both ways.

The original format is that of LLaVA v0, LLaVA-Med and ExGra-Med: one flat `config.json` with `mm_*` settings, the
language model's weights at `model.*`, the projector at `model.mm_projector.*`, no vision tower. Keys:

=============================================  ==========================================  ======================
original                                       Hugging Face, on disk                       exact
=============================================  ==========================================  ======================
`model.embed_tokens`, `.layers.N.*`, `.norm`   `language_model.model.*`                    bit for bit
`lm_head.weight`                               `language_model.lm_head.weight`             bit for bit
`model.mm_projector.0`, `.2`                   `multi_modal_projector.linear_1`, `_2`      bit for bit
`model.mm_projector.weight`, `.bias`           `linear_1`, with `linear_2` = identity      bit for bit
`model.mm_projector.0` of SCI                  wider `linear_1`, three feature layers      bit for bit
`model.mm_projector.0` of DCI                  wider `linear_1`, folded over all layers    to rounding, see below
`model.message_pass_node_features.*`           `alignment.safetensors`                     bit for bit
`model.vision_tower.*`, or a CLIP folder       `vision_tower.vision_model.*`               bit for bit
`...rotary_emb.inv_freq`                       dropped: follows from `config.json`         -
=============================================  ==========================================  ======================

These names are the ones in which `LlavaForConditionalGeneration` checkpoints are published; every transformers version
reads them. In memory transformers 5 calls them `model.language_model.*`, `model.multi_modal_projector.*`,
`model.vision_tower.*`.

Folding DCI divides its blocks by half the number of layers, which rounds. The unfolded first layer is therefore kept
beside the weights: as long as the folded one has not been trained, the way back returns the original bits.
"""
