"""The one token layout: clips, prompts and chains become token ids here, for training, rollout and serving alike.

    user:       <video> rubric with the prompt
    assistant:  chain ... <end of turn> <query>

A checkpoint of other code may have its query in another place, or several of them inside the rubric, and its video
inside the rubric at {video}: see `Layout` and `Chat.queries`. Rows are padded on the left, so that a chain is
continued, and the query read, at the last column.

Shapes: B sequences, T tokens."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from descore.errors import AnswerError, ConfigError, VideoError
from descore.rubric import PLACEHOLDER, AnswerForm, fill_rubric, read_answer
from descore.types import Clip, Completion

QUERY_TOKEN = "<|query|>"
VIDEO_PLACE = "{video}"
"""The place of the video in a rubric; without it the video comes first."""

MAX_TEMPLATE_LINES, MAX_TEMPLATE_TEXT = 100_000, 100_000
"""What a chat template may run and write for one turn; Qwen's run fewer than 200 lines."""

_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")
_SECONDS = "second_per_grid_ts"
"""The input by which a processor that writes no times tells those of its frames: seconds between two vision steps. Its
own are frames by the whole clip's duration, which is less than their distance and is what the official code has."""

Tokens: TypeAlias = list[int]
Inputs: TypeAlias = dict[str, Tensor]
"""The inputs of a backbone's forward: `input_ids`, `attention_mask` and `mm_token_type_ids` (B, T), and the vision
inputs of all rows concatenated."""
LayOutVideos: TypeAlias = Callable[[Any, Sequence[str], Sequence[Clip]], Inputs]
"""From a processor, user turns with a video's placeholder each, and their clips, to inputs padded on the left."""


class Layout(StrEnum):
    """Where the query stands. The first is the project's own; the others are those of the official DeScore code, for
    checkpoints that were trained with it."""

    QUERY_LAST = "chain, end of turn, query"
    QUERY_INSIDE = "chain, query, end of turn"
    """The query ends the assistant's chain, as in the official code's second stage of training. The query does not
    attend to the end of turn after it, so that is left out."""
    USER_TURN = "chain and query in the user's turn"
    """The chain is generated as the assistant's and then read as the end of the user's turn, as in the official code's
    first stage and inference. The cache of the generation cannot be used for the score."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorClip(Clip):
    """A clip whose pixels are read where they are. `frames` has the same on the host, for records and pages."""

    pixels: Tensor = field(repr=False)
    """(T, 3, H, W), uint8, or floats of 0 to 255, whose gradient is kept. The clips of one batch are on one device."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Lays out conversations for one checkpoint: its processor (whose tokenizer holds the query) and its rubric."""

    processor: Any
    rubric: str
    layout: Layout = Layout.QUERY_LAST
    resize: bool = False
    """Let the processor scale a clip whose frames have more pixels in all than its bound, as the official code does."""
    wraps_frames: bool = True
    """The processor writes a time and a wrapper for each frame, so the template's wrapper around the video goes."""
    lay_out_videos: LayOutVideos | None = None
    """Lays out videos in the processor's place, where that does not as the model was trained."""
    queries: tuple[str, ...] = ()
    """Tokens inside the rubric at which the rewards are read, one for each dimension, as VideoAlign's models have them:
    there is no chain. None: the query behind the chain."""
    answer: AnswerForm | None = None
    """How a generative model's chain gives its rewards; None: by the overall score in its <answer> block."""

    def __post_init__(self) -> None:
        for token in self.queries or (QUERY_TOKEN,):
            if token not in self.tokenizer.get_vocab():
                raise ConfigError(f"the tokenizer has no {token} token; start from DescoreModel.from_backbone")
            if self.queries and self.rubric.count(token) != 1:
                raise ConfigError(f"rubric: found {self.rubric.count(token)} times {token}; expected each query once")

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401  # transformers' tokenizer classes share no typed base
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def query_id(self) -> int:
        """The id of the query token, the last one of several."""
        return int(self.tokenizer.convert_tokens_to_ids(self.queries[-1] if self.queries else QUERY_TOKEN))

    @property
    def end_id(self) -> int:
        """The id of the end-of-turn token that ends every chain."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The id that pads rows on the left."""
        return int(self.tokenizer.pad_token_id)

    @property
    def forbidden_ids(self) -> Tokens:
        """Every special id except the end of turn; a chain never has one of them."""
        return sorted(set(self._special_tokens) - {self.end_id})

    def lay_out_prompts(self, clips: Sequence[Clip], prompts: Sequence[str]) -> Inputs:
        """The user turns, up to where the assistant's chain begins. One prompt for each clip."""
        texts = [self.user_turn(prompt) for prompt in prompts]
        if self.lay_out_videos is not None:
            return self.lay_out_videos(self.processor, texts, clips)
        return self._process(texts, clips)

    def lay_out_pairs(self, pairs: Sequence[tuple[Clip, Clip]], prompts: Sequence[str]) -> Inputs:
        """The same with two clips in each turn, for judges that compare. ConfigError where only one can be laid out."""
        if self.lay_out_videos is not None:
            raise ConfigError("the backbone's frames are laid out for one video a turn; two clips cannot be compared")
        texts = [self.user_turn(prompt, videos=2) for prompt in prompts]
        return self._process(texts, [clip for pair in pairs for clip in pair])

    def _process(self, texts: Sequence[str], clips: Sequence[Clip]) -> Inputs:
        """Inputs of these turns, with the clips at their placeholders, in order."""
        videos = [pixels_of(clip) for clip in clips]
        features = self.processor(
            text=list(texts),
            # Floats that are scaled a second time are not rounded to whole levels, as in the official code.
            videos=[video.float() for video in videos] if self.resize else videos,
            video_metadata=[video_metadata(clip) for clip in clips],
            do_sample_frames=False,  # the frames were sampled when the file was read
            do_resize=self.resize,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        inputs: Inputs = dict(features)
        if _SECONDS in inputs and not self.resize:
            step = self.processor.video_processor.temporal_patch_size
            inputs[_SECONDS] = torch.tensor([step * _seconds_apart(clip) for clip in clips])
        return inputs

    def lay_out_chains(self, prompts: Inputs, chains: Sequence[Tokens], *, query: bool = True) -> Inputs:
        """The whole sequences: each prompt row, its chain, and then the query.

        `chains` are ids that end with the end of turn; `no_thinking` is the chain of a model that does not think. The
        result also has `chain_mask` (B, T), true at the chain's columns. Queries inside the rubric are there already,
        and see no chain."""
        if query and self.queries:
            return {**prompts, "chain_mask": torch.zeros_like(prompts["input_ids"], dtype=torch.bool)}
        tails = [[*self.before_query(chain), self.query_id] if query else list(chain) for chain in chains]
        heads = [row[mask.bool()] for row, mask in zip(prompts["input_ids"], prompts["attention_mask"], strict=True)]
        if query and self.layout is Layout.USER_TURN:
            heads = [head[: self._end_of_user(head.tolist())] for head in heads]
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

    def at_queries(self, hidden_BTD: Tensor, ids_BT: Tensor) -> list[Tensor]:
        """Hidden states (B, 1, D) at each of the queries inside the rubric, in their order."""
        by_query = [ids_BT == token for token in self.tokenizer.convert_tokens_to_ids(list(self.queries))]
        return [hidden_BTD[at_BT][:, None] for at_BT in by_query]

    def read_at_query(self, turn: Tokens, chain: Tokens) -> Tokens:
        """The whole sequence that the reward is read at the end of: the ids of a user's turn, its chain, the query."""
        head = turn[: self._end_of_user(turn)] if self.layout is Layout.USER_TURN else turn
        return [*head, *self.before_query(chain), self.query_id]

    def before_query(self, chain: Tokens) -> Tokens:
        """The part of a chain that stands before the query: all of it, or all but its end of turn."""
        return list(chain) if self.layout is Layout.QUERY_LAST else chain[:-1]

    @property
    def no_thinking(self) -> Tokens:
        """The empty chain, which is the end of turn alone."""
        return [self.end_id]

    def encode_chain(self, thinking: str) -> Tokens:
        """The ids of a chain's text, with its end of turn."""
        return [*self.tokenizer(self._escape(thinking), add_special_tokens=False)["input_ids"], self.end_id]

    def decode_chain(self, chain: Tokens) -> str:
        """The text of a chain's ids, without its end of turn."""
        return str(self.tokenizer.decode(chain, skip_special_tokens=True)).strip()

    def to_completion(self, chain: Tokens, *, limit: int, rewards: Mapping[str, float] | None) -> Completion:
        """A written chain, parsed; one that was ended behind `limit` tokens is truncated.

        rewards: those of the head, by dimension; None where there is no head: then the answer's overall score, or the
        scores of the checkpoint's own form, if they are there, are the rewards."""
        text = self.decode_chain(chain)
        verdict, flaw, read = None, None, dict[str, float]()
        try:
            if self.answer is not None:
                read = {name: score.value for name, score in self.answer.read(text).items()}
            else:
                verdict = read_answer(text)
                read = {"overall": verdict.overall}
        except AnswerError as fault:
            flaw = str(fault)
        rewards = read if rewards is None else rewards
        return Completion(
            token_ids=chain, text=text, truncated=len(chain) > limit, verdict=verdict, flaw=flaw, rewards=rewards
        )

    def empty_completion(self, rewards: Mapping[str, float]) -> Completion:
        """The completion of a model that has not thought."""
        return Completion(
            token_ids=self.no_thinking, text="", truncated=False, verdict=None, flaw=None, rewards=rewards
        )

    def check_template(self) -> None:
        """ValueError if the chat template does not end, or does not write the video once and the prompt's text."""
        with _bounded_templates():
            turn = self.user_turn("probe")
        videos = turn.count(self.processor.video_token)
        if videos != 1 or "probe" not in turn:
            raise ValueError(f"it writes the video {videos} times; expected it once, and the rubric with the prompt")
        if len(turn) > len(self.rubric) + MAX_TEMPLATE_TEXT:
            raise ValueError(f"it writes {len(turn):,} characters; expected few beside the rubric")

    def user_turn(self, prompt: str, *, videos: int = 1) -> str:
        """The text of a prompt's turn, up to where the chain begins; each of its videos is one placeholder in it."""
        parts = [part for part in self.user_parts(prompt) for _ in range(videos if part["type"] == "video" else 1)]
        turn = self.processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=False,
            processor_kwargs={"do_sample_frames": False},  # or SmolVLM's adds its own, with a warning each time
        )
        if not self.wraps_frames:
            return str(turn)
        # The template's own wrapper around the placeholder would enclose the frames twice (Qwen's release and vLLM drop
        # it, transformers 5 keeps it).
        video = self.processor.video_token
        wrapped = f"{self.processor.vision_start_token}{video}{self.processor.vision_end_token}"
        return str(turn).replace(wrapped, video, videos)

    def user_parts(self, prompt: str) -> list[dict[str, str]]:
        """The contents of a prompt's turn: the video, and the rubric around it. The rubric is split before the prompt
        is filled in, so that a prompt cannot place the video."""
        fill_rubric(self.rubric, prompt="")
        before, _, after = self.rubric.rpartition(VIDEO_PLACE)
        prompt = self._escape(prompt)
        texts = [{"type": "text", "text": text.replace(PLACEHOLDER, prompt)} for text in (before, after)]
        return [part for part in (texts[0], {"type": "video"}, texts[1]) if part.get("text") != ""]

    def _end_of_user(self, turn: Tokens) -> int:
        """The column of the user's end of turn, which is the last since a prompt cannot contain special tokens."""
        return len(turn) - 1 - turn[::-1].index(self.end_id)

    def _escape(self, text: str) -> str:
        """The text with a space inside each special token, so that a prompt cannot end the user's turn, and inside the
        video's placeholder, which need not be one."""
        for token in (*self._special_tokens.values(), self.processor.video_token):
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @property
    def _special_tokens(self) -> dict[int, str]:
        return {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}


def find_too_long(
    clips: Sequence[Clip], lengths: Sequence[int], *, limit: int, room: int, name: str
) -> dict[int, VideoError]:
    """By index, the clips that leave no room for a chain of `limit` tokens, and why.

    lengths: tokens of each clip with its prompt. room: tokens that the model `name` reads in all. A limit that nothing
    could fit beside is a ConfigError."""
    if limit + 2 >= room:
        raise ConfigError(f"max_chain_tokens is {limit}; {name} reads {room} tokens in all, the clip included")
    return {
        index: VideoError(
            clips[index].source,
            f"clip and prompt take {length} tokens and the chain up to {limit}; {name} reads {room} in all: "
            "shorten the prompt, sample fewer frames, or lower max_chain_tokens",
        )
        for index, length in enumerate(lengths)
        if length + limit + 2 > room
    }


def pixels_of(clip: Clip) -> Tensor:
    """The frames (T, 3, H, W) on the device that they are on."""
    return clip.pixels if isinstance(clip, TensorClip) else torch.from_numpy(clip.frames).permute(0, 3, 1, 2)


def _seconds_apart(clip: Clip) -> float:
    """The mean distance of two frames, and 1 for a single one, whose distance nothing asks for."""
    return (clip.times[-1] - clip.times[0]) / (len(clip.times) - 1) if len(clip.times) > 1 else 1.0


def video_metadata(clip: Clip) -> dict[str, Any]:
    """The clip's times in the form of transformers' VideoMetadata: frame numbers at a frame rate.

    The numbers are fractions where the frame rate varies, so that the times stay exact, unless the clip's sampling rule
    numbers frames."""
    numbers = clip.frame_numbers or [time * clip.source_fps for time in clip.times]
    return {
        "total_num_frames": clip.source_frames,
        "fps": clip.source_fps,
        "width": clip.size[0],
        "height": clip.size[1],
        "duration": clip.duration,
        "frames_indices": list(numbers),
    }


@contextmanager
def _bounded_templates() -> Iterator[None]:
    """Count the lines of Jinja templates that run meanwhile; ValueError at one too many."""
    lines, before = 0, sys.gettrace()

    def count(_frame: FrameType, _event: str, _value: object) -> Any:  # noqa: ANN401  # Python's signature
        nonlocal lines
        lines += 1
        if lines > MAX_TEMPLATE_LINES:
            raise ValueError(f"it does not end within {MAX_TEMPLATE_LINES:,} lines")
        return count

    sys.settrace(lambda frame, _event, _value: count if frame.f_code.co_filename == "<template>" else None)
    try:
        yield
    finally:
        sys.settrace(before)
