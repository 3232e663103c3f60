"""Small Qwen3-VL backbones with random weights, from which the bundled model was trained.

The classes, special tokens, chat template and positions are those of the 8-billion model; only the sizes differ.
Nothing else in the package builds one: experiments, benchmarks and tests do."""

from collections.abc import Iterable, Sequence
from typing import Any

SPECIAL_TOKENS = {
    "end_of_text": "<|endoftext|>",
    "turn_start": "<|im_start|>",
    "turn_end": "<|im_end|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
}
"""The names that Qwen3-VL gives them, so that processors and engines find what they look for."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message.role }}{{ '\n' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}"
    "<|im_end|>{{ '\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\n' }}{%- endif -%}"
)


MARKED = r" ?\p{L}+[.,:]"
"""A word with the mark behind it."""
PIECES = (
    r'<answer>\{"[a-z_]+": \{|[,}]* ?"[a-z_]+": |\}</answer>'  # the answer's frame, key by key
    r"|<\p{N}+\.\p{N} seconds>"
    r"| ?N/A\.?|" + MARKED + r"| ?\p{L}+|\p{N}\.\p{N}+| ?\p{N}[.,]?| ?\"?[^\s\p{L}\p{N}]+|\s+"
)
"""Where texts are cut before byte pairs are joined. A word keeps the mark behind it, and what every chain repeats stays
in one piece: a small model's sequences are a third shorter than in words and marks apart."""


def small_processor(texts: Iterable[str], *, vocabulary: int = 1024, patch: int = 8) -> Any:  # noqa: ANN401
    """A processor with a byte-level BPE tokenizer trained on `texts`: it takes any text, and knows these well.

    vocabulary: entries in all, of which 256 are the bytes. patch: edge of a vision patch in pixels; frames come in
    multiples of twice that."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(
        # An engine may normalize a video with what the image part says, so both say the same.
        Qwen2VLImageProcessor(patch_size=patch, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        small_tokenizer(texts, vocabulary=vocabulary),
        Qwen3VLVideoProcessor(patch_size=patch, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


def small_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Any:  # noqa: ANN401
    """Byte-level BPE, with Qwen's special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - 8,  # the query joins later, and the sum stays a multiple of 8
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(SPECIAL_TOKENS.values()),
            show_progress=False,
        ),
    )
    return with_special_tokens(tokenizer)


def with_special_tokens(tokenizer: Any) -> Any:  # noqa: ANN401
    """The form that transformers takes, of a tokenizer that has Qwen's special tokens."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL_TOKENS["turn_end"],
        pad_token=SPECIAL_TOKENS["end_of_text"],
        additional_special_tokens=list(SPECIAL_TOKENS.values()),
        clean_up_tokenization_spaces=False,
    )


def small_config(
    processor: Any,  # noqa: ANN401
    *,
    vocabulary: int = 1024,
    width: int = 256,
    layers: int = 6,
    vision_width: int = 192,
    vision_layers: int = 4,
    deepstack_layers: Sequence[int] | None = None,
    frame_edge: int = 64,
) -> Any:  # noqa: ANN401
    """A Qwen3VLConfig for this processor. Widths in multiples of 64 and 48, the sizes of a head.

    deepstack_layers: vision layers whose features the first text layers take, too; default: the second and the last."""
    from transformers import Qwen3VLConfig

    patch = processor.video_processor.patch_size
    ids = {name: processor.tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL_TOKENS.items()}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        # time, height and width share half a head's dimensions in the family's proportion of 24 : 20 : 20
        # transformers interleaves them without being asked, other engines only where the config says so
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "eos_token_id": ids["turn_end"],
    }
    vision = {
        "depth": vision_layers,
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_heads": vision_width // 48,
        "out_hidden_size": width,
        "patch_size": patch,
        "num_position_embeddings": (frame_edge // patch) ** 2,
        "deepstack_visual_indexes": list(deepstack_layers or (1, vision_layers - 1)),
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
