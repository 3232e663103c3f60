"""THE token layout. Clips, prompts and chains become token ids here, for training, rollout and serving alike:

    user:       <video> rubric with the prompt
    assistant:  chain ... <end of turn> <query>

A checkpoint that was trained elsewhere may have its query in another place, and its video within the rubric, where
{video} stands: see `Layout`.

Rows are padded on the left, so a chain is continued, and the query is read, at the last column.
Knows a transformers processor and a rubric; knows nothing of the model that will read the ids.

Shapes: B sequences, T tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import torch
from torch import Tensor

from descore.errors import ConfigError
from descore.rubric import PLACEHOLDER, fill_rubric
from descore.types import Clip

QUERY_TOKEN = "<|query|>"
VIDEO_PLACE = "{video}"
"""Where a rubric has it, the video stands; otherwise the video comes first."""

Tokens: TypeAlias = list[int]
Inputs: TypeAlias = dict[str, Tensor]
"""What a backbone's forward takes: `input_ids`, `attention_mask` and `mm_token_type_ids` (B, T), and the vision inputs
of all rows behind one another."""


class Layout(StrEnum):
    """Where the query stands. The first is the project's own; the others are those of the official DeScore code, for
    checkpoints that were trained with it."""

    QUERY_LAST = "chain, end of turn, query"
    QUERY_INSIDE = "chain, query, end of turn"
    """The chain is the assistant's, and the query closes it: the official code's second stage of training. The end of
    turn behind the query is not seen by it, so it is left out."""
    USER_TURN = "chain and query in the user's turn"
    """The chain is written as the assistant's, and then read as the end of the user's turn: the official code's first
    stage, and its inference. What was read to write the chain does not serve to score it."""


_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass(frozen=True, slots=True)
class Chat:
    """Lays out conversations for one checkpoint: its processor (whose tokenizer holds the query) and its rubric."""

    processor: Any
    rubric: str
    layout: Layout = Layout.QUERY_LAST

    def __post_init__(self) -> None:
        if QUERY_TOKEN not in self.tokenizer.get_vocab():
            raise ConfigError(f"the tokenizer has no {QUERY_TOKEN} token; start from DescoreModel.from_backbone")

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401  # transformers' tokenizer classes share no typed base
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def query_id(self) -> int:
        """The id of the query token."""
        return int(self.tokenizer.convert_tokens_to_ids(QUERY_TOKEN))

    @property
    def end_id(self) -> int:
        """The id of the end-of-turn token that closes every chain."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The id that fills rows on the left."""
        return int(self.tokenizer.pad_token_id)

    @property
    def forbidden_ids(self) -> Tokens:
        """Every special id but the end of turn: a chain never holds them."""
        return sorted(set(self._special_tokens) - {self.end_id})

    def lay_out_prompts(self, clips: Sequence[Clip], prompts: Sequence[str]) -> Inputs:
        """The user turns, up to where the assistant's chain begins. One prompt for each clip."""
        texts = [self._user_turn(prompt) for prompt in prompts]
        features = self.processor(
            text=texts,
            videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2) for clip in clips],
            video_metadata=[_metadata(clip) for clip in clips],
            do_sample_frames=False,  # the clip is the sample: frames are chosen once, when the file is read
            do_resize=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return dict(features)

    def lay_out_chains(self, prompts: Inputs, chains: Sequence[Tokens], *, query: bool = True) -> Inputs:
        """The whole sequences: each prompt row, its chain, and the query behind it.

        `chains` are ids that end with the end of turn; `no_thinking` is the chain of a model that does not think. The
        result has one more key, `chain_mask` (B, T), true at the chain's columns."""
        tails = [[*self.seen(chain), self.query_id] if query else list(chain) for chain in chains]
        heads = [row[mask.bool()] for row, mask in zip(prompts["input_ids"], prompts["attention_mask"], strict=True)]
        if query and self.layout is Layout.USER_TURN:
            heads = [head[: self._end_of_user(head)] for head in heads]
        kinds = [
            row[mask.bool()][: len(head)]
            for row, mask, head in zip(prompts["mm_token_type_ids"], prompts["attention_mask"], heads, strict=True)
        ]
        width = max(len(head) + len(tail) for head, tail in zip(heads, tails, strict=True))
        shape, device = (len(heads), width), prompts["input_ids"].device
        out = {key: torch.zeros(shape, dtype=torch.long, device=device) for key in (*_PER_TOKEN, "chain_mask")}
        out["input_ids"].fill_(self.pad_id)
        for row, (head, kind, tail) in enumerate(zip(heads, kinds, tails, strict=True)):
            start = width - len(head) - len(tail)
            chain_start = start + len(head)
            out["input_ids"][row, start:chain_start] = head
            out["input_ids"][row, chain_start:] = torch.tensor(tail, device=device)
            out["attention_mask"][row, start:] = 1
            out["mm_token_type_ids"][row, start:chain_start] = kind
            out["chain_mask"][row, chain_start : width - int(query)] = 1
        return {**prompts, **out, "chain_mask": out["chain_mask"].bool()}

    def seen(self, chain: Tokens) -> Tokens:
        """What of a chain the query sees: all, or all but its end of turn."""
        return list(chain) if self.layout is Layout.QUERY_LAST else chain[:-1]

    @property
    def no_thinking(self) -> Tokens:
        """The empty chain: the assistant's turn ends at once."""
        return [self.end_id]

    def encode_chain(self, thinking: str) -> Tokens:
        """The ids of a written chain, its end of turn included."""
        return [*self.tokenizer(self._plain(thinking), add_special_tokens=False)["input_ids"], self.end_id]

    def decode_chain(self, chain: Tokens) -> str:
        """The text of a chain's ids, without its end of turn."""
        return str(self.tokenizer.decode(chain, skip_special_tokens=True)).strip()

    def _user_turn(self, prompt: str) -> str:
        turn = self.processor.apply_chat_template(
            [{"role": "user", "content": self._parts(self._plain(prompt))}], add_generation_prompt=True, tokenize=False
        )
        # Processors write a timestamp and a wrapper for each frame; the template's own wrapper around the
        # placeholder would stand around them a second time (Qwen's release and vLLM drop it, transformers 5 keeps it).
        video = self.processor.video_token
        wrapped = f"{self.processor.vision_start_token}{video}{self.processor.vision_end_token}"
        return str(turn).replace(wrapped, video, 1)

    def _parts(self, prompt: str) -> list[dict[str, str]]:
        """The video, and the rubric around it. Cut before the prompt is filled in: a prompt places no video."""
        fill_rubric(self.rubric, prompt="")
        before, _, after = self.rubric.rpartition(VIDEO_PLACE)
        texts = [{"type": "text", "text": text.replace(PLACEHOLDER, prompt)} for text in (before, after)]
        return [part for part in (texts[0], {"type": "video"}, texts[1]) if part.get("text") != ""]

    def _end_of_user(self, head: Tensor) -> int:
        """The column of the user's end of turn; nothing that a user writes can hold another."""
        return int((head == self.end_id).nonzero()[-1])

    def _plain(self, text: str) -> str:
        """The text with special tokens taken apart: a user's prompt must not be able to end the user's turn."""
        for token in self._special_tokens.values():
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @property
    def _special_tokens(self) -> dict[int, str]:
        return {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}


def _metadata(clip: Clip) -> dict[str, Any]:
    """The clip's true times, told the way transformers' VideoMetadata asks for them: frame numbers at a frame rate.

    Frame numbers need not be whole: with a variable frame rate, a time is where it is."""
    return {
        "total_num_frames": clip.source_frames,
        "fps": clip.source_fps,
        "width": clip.size[0],
        "height": clip.size[1],
        "duration": clip.duration,
        "frames_indices": [time * clip.source_fps for time in clip.times],
    }
