"""Chains and rewards from an engine that only continues tokens, by two requests for each chain.

The first request writes the chain; the second is the same tokens, the end of turn and the query, and asks for the
logits of the rows that hold the head (`model.export`). The engine's cache keeps what both share. Without thinking there
is the second one alone, and for a generative model the first one alone.

In: clips and prompts. Out: completions. `Backend` sends the requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import takewhile
from math import isfinite
from typing import Protocol

import numpy as np
import torch

from descore.engines.exports import EngineCheckpoint
from descore.errors import VideoError
from descore.io import folder_digest
from descore.model.chat import Tokens, find_too_long, video_metadata
from descore.types import Clip, Completion, EngineOutput

LOGIT_OF_NOTHING = -9999.0
"""What a server writes for a logarithm of zero, and for what is no number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """A clip and its prompt, laid out."""

    clip: Clip
    prompt: str
    token_ids: Tokens
    """The user's turn with one placeholder for the video, as requests give it."""
    expanded_ids: Tokens
    """The same as the model reads it, with times and a placeholder for each patch."""
    uuid: str
    """The same for the same frames and times, so that an engine that has them need not be given them again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenRequest:
    """Tokens to continue."""

    turn: Turn
    chain: Tokens | None
    """None: to be written. Otherwise the reward is to be read behind it."""
    token_ids: Tokens
    expanded_ids: Tokens
    """As the engine must read them; its answer says how it did."""
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutput:
    """What came of a request."""

    prompt_ids: Tokens
    """As the engine read them."""
    token_ids: Tokens
    ended: bool
    """Whether the end of turn was written, and not the limit reached."""
    logits: Mapping[int, float]
    """By token, its logit or log-probability; empty where a chain was written."""


class ChainTextError(VideoError):
    """A chain that the engine cannot be given again, whatever it is asked: one of several is left out."""


class Backend(Protocol):
    """Sends requests to an engine."""

    name: str

    def send(self, requests: Sequence[TokenRequest]) -> list[TokenOutput | VideoError]:
        """An output for each request, in order, or why there is none. What holds for all raises ConfigError."""


class TwoRequestEngine:
    """See `descore.engines.Engine`."""

    device, batch_size = torch.device("cpu"), 64

    def __init__(
        self, checkpoint: EngineCheckpoint, backend: Backend, *, max_model_len: int, dtype: torch.dtype
    ) -> None:
        self.checkpoint, self.backend = checkpoint, backend
        self.name, self.settings, self.chat = backend.name, checkpoint.settings, checkpoint.chat
        self.max_model_len, self.dtype = max_model_len, dtype
        self._suppressed = set(suppressed_ids(checkpoint))

    def digest(self) -> str:
        """A digest of the folder's files: settings, rubric and weights."""
        return folder_digest(self.checkpoint.folder)

    def complete(
        self,
        clips: Sequence[Clip],
        prompts: Sequence[str],
        *,
        think: bool,
        limit: int,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[EngineOutput | VideoError]:
        """See `descore.engines.Engine.complete`."""
        turns = [self._lay_out(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True)]
        lengths = [len(turn.expanded_ids) for turn in turns]
        faults = find_too_long(clips, lengths, limit=limit, room=self.max_model_len, name=self.checkpoint.source)
        fitting = [turn for index, turn in enumerate(turns) if index not in faults]
        rows = [turn for turn in fitting for _ in range(samples)]
        if think:
            seeds = [chain_seed(seed, sample) for _ in fitting for sample in range(samples)]
            chains = self._write(rows, seeds, limit=limit, temperature=temperature)
        else:
            chains = [self.chat.no_thinking for _ in rows]
        completions = self._read(rows, chains, limit=limit, think=think)
        of_turn = iter([completions[start : start + samples] for start in range(0, len(rows), samples)])
        return [
            faults[index] if index in faults else _output_of(next(of_turn), length)
            for index, length in enumerate(lengths)
        ]

    def _lay_out(self, clip: Clip, prompt: str) -> Turn:
        expanded = self.chat.lay_out_prompts([clip], [prompt])["input_ids"][0].tolist()
        text = self.chat.user_turn(prompt)
        token_ids = self.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return Turn(clip=clip, prompt=prompt, token_ids=token_ids, expanded_ids=expanded, uuid=clip_uuid(clip))

    def _write(
        self, rows: Sequence[Turn], seeds: Sequence[int], *, limit: int, temperature: float
    ) -> list[Tokens | VideoError]:
        """A chain for each row, which ends with the end of turn."""
        requests = [
            TokenRequest(
                turn=turn,
                chain=None,
                token_ids=turn.token_ids,
                expanded_ids=turn.expanded_ids,
                max_tokens=limit,
                temperature=temperature,
                seed=seed,
            )
            for turn, seed in zip(rows, seeds, strict=True)
        ]
        return [
            output if isinstance(output, VideoError) else self._chain_of(request, output, limit=limit)
            for request, output in zip(requests, self._send(requests), strict=True)
        ]

    def _chain_of(self, request: TokenRequest, output: TokenOutput, *, limit: int) -> Tokens | VideoError:
        end, written = self.chat.end_id, list(output.token_ids)
        chain = written[:-1] if output.ended and written[-1:] == [end] else written
        if self._suppressed.intersection(chain) or end in chain:
            return self._fault(request, "writes tokens that no chain has; its weights or settings are not the export's")
        if not output.ended and len(chain) != limit:
            return self._fault(request, f"wrote {len(chain)} tokens, and neither ended the chain nor reached {limit}")
        return [*chain, end]

    def _read(
        self, rows: Sequence[Turn], chains: Sequence[Tokens | VideoError], *, limit: int, think: bool
    ) -> list[Completion | VideoError]:
        """A completion for each row, with the rewards of its chain."""
        written = [(t, c) for t, c in zip(rows, chains, strict=True) if not isinstance(c, VideoError)]
        rewards = iter(self._rewards(written))
        return [
            chain if isinstance(chain, VideoError) else self._completion(chain, next(rewards), limit=limit, think=think)
            for chain in chains
        ]

    def _completion(
        self, chain: Tokens, rewards: Sequence[float] | VideoError, *, limit: int, think: bool
    ) -> Completion | VideoError:
        if isinstance(rewards, ChainTextError):
            return replace(self.chat.to_completion(chain, limit=limit, rewards={}), verdict=None, flaw=rewards.reason)
        if isinstance(rewards, VideoError):
            return rewards
        named = dict(zip(self.settings.dimensions, rewards, strict=True)) if rewards else None
        if think:
            return self.chat.to_completion(chain, limit=limit, rewards=named)
        assert named is not None, "a generative model thinks"
        return self.chat.empty_completion(named)

    def _rewards(self, rows: Sequence[tuple[Turn, Tokens]]) -> "list[list[float] | VideoError]":
        """The rewards of chains, one for each dimension; none of a generative model."""
        if self.settings.paradigm == "generative":
            return [[] for _ in rows]
        requests = [
            TokenRequest(
                turn=turn,
                chain=chain,
                token_ids=self.chat.read_at_query(turn.token_ids, chain),
                expanded_ids=self.chat.read_at_query(turn.expanded_ids, chain),
            )
            for turn, chain in rows
        ]
        return [
            output if isinstance(output, VideoError) else self._reward_of(request, output)
            for request, output in zip(requests, self._send(requests), strict=True)
        ]

    def _reward_of(self, request: TokenRequest, output: TokenOutput) -> list[float] | VideoError:
        """Scale (z_hi + z_lo - 2 z_zero): z_zero is 0 among logits; of log-probabilities the normalizer cancels."""
        rows = self.settings.vocabulary_rows
        assert rows is not None
        z = output.logits
        if not all(isfinite(z[i]) and z[i] > LOGIT_OF_NOTHING for i in rows.ids):
            return self._fault(request, f"gives no finite logits: {[z[i] for i in rows.ids]}")
        return [
            rows.scale * (z[rows.hi[name]] + z[rows.lo[name]] - 2 * z[rows.zero]) for name in self.settings.dimensions
        ]

    def _send(self, requests: Sequence[TokenRequest]) -> list[TokenOutput | VideoError]:
        """The outputs, of which each must have been read as it was laid out."""
        outputs = self.backend.send(requests) if requests else []
        return [
            output if isinstance(output, VideoError) else self._checked(request, output)
            for request, output in zip(requests, outputs, strict=True)
        ]

    def _checked(self, request: TokenRequest, output: TokenOutput) -> TokenOutput | VideoError:
        ours, theirs = request.expanded_ids, list(output.prompt_ids)
        if ours == theirs:
            return output
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
        return self._fault(
            request, f"reads {len(theirs)} tokens where descore lays out {len(ours)}; they differ from number {same} on"
        )

    def _fault(self, request: TokenRequest, reason: str) -> VideoError:
        return VideoError(request.turn.clip.source, f"engine {self.name} {reason}")


def _output_of(completions: Sequence[Completion | VideoError], length: int) -> EngineOutput | VideoError:
    """All of a clip's completions, or its first error."""
    fault = next((one for one in completions if isinstance(one, VideoError)), None)
    if fault is not None:
        return fault
    return EngineOutput(prompt_tokens=length, completions=[one for one in completions if isinstance(one, Completion)])


def suppressed_ids(checkpoint: EngineCheckpoint) -> Tokens:
    """What no chain holds: special ids but the end of turn, and rows of the vocabulary that no token has."""
    chat = checkpoint.chat
    known = [i for i in chat.forbidden_ids if i < checkpoint.vocabulary]
    return [*known, *(i for i in range(len(chat.tokenizer), checkpoint.vocabulary))]


def chain_seed(seed: int, sample: int) -> int:
    """The seed of one of several chains: it depends on these two alone."""
    return int(np.random.SeedSequence([seed, sample]).generate_state(1)[0])


def clip_uuid(clip: Clip) -> str:
    """A name of the clip's frames and times."""
    digest = sha256(repr((clip.frames.shape, video_metadata(clip))).encode())
    digest.update(np.ascontiguousarray(clip.frames).data)
    return f"descore-{digest.hexdigest()[:32]}"
