"""A small, plain Qwen3-VL that writes the chains it is told, by its weights alone: no layer moves anything, each token
of a chain has a direction of its own, and the output reads from it what comes next (a Markov chain)."""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig

from descore.model.small import small_config, small_processor
from descore.rubric import DEFAULT_RUBRIC

WIDTH = 64
SURE = 30.0
"""A logit that leaves all other tokens together less than 1e-9."""

Pieces = tuple[str, ...]
"""A chain, cut into what becomes a token each."""


def qwen3_vl(pieces):
    processor = small_processor([DEFAULT_RUBRIC], vocabulary=1000)
    processor.tokenizer.add_tokens(pieces)
    return processor, small_config(processor, vocabulary=1024, width=WIDTH, layers=1, vision_width=48, vision_layers=2)


def save_told(folder: Path, chains: Mapping[Pieces, float], *, build=qwen3_vl) -> Path:
    """Write a backbone that begins each turn with one of `chains`, with the probability given for it. build: gives a
    processor whose tokenizer has these pieces, and a config that is WIDTH wide."""
    processor, config = build(sorted({piece for pieces in chains for piece in pieces}))
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    backbone = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for layer in backbone.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        _tell(backbone, processor.tokenizer, chains)
    # As Qwen's own checkpoints have one: what a judge writes must not depend on it.
    backbone.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.8, top_k=20)
    backbone.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tell(backbone, tokenizer, chains):
    likely = {}
    for pieces, probability in chains.items():
        before = tokenizer("assistant\n")["input_ids"][-1]
        tokens = [before, *tokenizer.convert_tokens_to_ids(pieces), tokenizer.eos_token_id]
        for token, following in pairwise(tokens):
            after = likely.setdefault(token, {})
            after[following] = after.get(following, 0.0) + probability
    embedding, output = backbone.model.language_model.embed_tokens.weight.zero_(), backbone.lm_head.weight.zero_()
    for direction, (token, after) in enumerate(likely.items()):
        embedding[token, direction] = 1.0
        for following, probability in after.items():
            # The last norm makes sqrt(D) of the 1.
            output[following, direction] = (SURE + math.log(probability)) / math.sqrt(WIDTH)
