"""The public face: think, then score.

    scorer = Scorer.from_pretrained("tiny")
    result = scorer.score("clip.mp4", prompt="a red ball rolls to the left")

Takes videos with their prompts and gives `Score` records."""

import hashlib
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from descore.config_model import ConfigModel
from descore.errors import ConfigError, DescoreError, DescoreWarning, VideoError
from descore.model.chat import Chat, Inputs, find_too_long
from descore.model.checkpoint import CheckpointSettings
from descore.model.generation import OnToken, score_without_thinking, think_and_score
from descore.model.modeling import DescoreModel
from descore.rubric import check_prompt
from descore.types import Clip, Comparison, Completion, EngineOutput, Paradigm, Score, Think, preference_probability
from descore.video.reader import read_clip

if TYPE_CHECKING:
    from descore.engines import Engine

_QUOTED = 60  # characters of a chain that a message quotes
_VALUES = 4096
"""Of each tensor, so many values spread over it say whether it is the same. Training moves every tensor that it trains
as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One video to score, and the prompt that it was generated from."""

    video: Any
    """What `read_clip` takes: a path, bytes, frames, images, or a Clip."""
    prompt: str
    fps: float | None = None
    """Frames per second of the video, where it cannot say so itself (frames, images)."""
    on_token: OnToken | None = None
    """Who watches the chains being written: called with a chain's number and its next token; False ends it."""


class SamplingParams(ConfigModel):
    """How to think before scoring."""

    model_config = ConfigDict(title="sampling parameters")

    think: Think | None = None
    """"on" writes a chain before the reward is read, "off" reads it at once. None: "off" for a model that was trained
    without chains, and "on" for any other."""
    samples: PositiveInt = 1
    """Chains for each clip. More than one gives the reward a standard deviation."""
    temperature: NonNegativeFloat | None = None
    """0 always takes the likeliest token. None: 0 for one sample, 1 for several."""
    seed: NonNegativeInt = 0
    """The same seed gives the same chains, alone or in a batch; in bfloat16 see docs/architecture.md, "Precision"."""
    max_chain_tokens: PositiveInt | None = None
    """Tokens after which a chain is ended and flagged `truncated`. None: as the checkpoint says."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Several chains need chance, and chains."""
        if self.samples > 1 and self.temperature == 0:
            yield "temperature", "is 0, and several samples are then all the same; raise it or take one sample"
        if self.samples > 1 and self.think == "off":
            yield "samples", f"must be 1, got {self.samples}: without thinking there is one sample only"

    @property
    def effective_temperature(self) -> float:
        """The temperature that is meant."""
        if self.temperature is None:
            return 0.0 if self.samples == 1 else 1.0
        return self.temperature

    def resolved(self, paradigm: Paradigm | None) -> "SamplingParams":
        """The same for a model of this paradigm, with `think` decided; None is a paradigm that is not known yet.

        A generative model that is not to think, and a discriminative one that is, raise ConfigError."""
        if paradigm == "generative" and self.think == "off":
            raise ConfigError("a generative model's reward is in what it writes: it cannot score with think off")
        if paradigm == "discriminative" and self.think == "on":
            raise ConfigError("a discriminative model was trained without chains: it cannot score with think on")
        if paradigm is None or self.think is not None:
            return self
        return self.model_copy(update={"think": "off" if paradigm == "discriminative" else "on"})


class NativeEngine:
    """Our own engine, in this process: chains, and rewards read from their cache (`model.generation`)."""

    name, batch_size = "native", 8

    def __init__(self, model: DescoreModel, *, source: str) -> None:
        self.model = model.eval()
        self.source = source
        self.settings, self.chat = model.settings, model.chat
        self.max_model_len = int(model.backbone.config.get_text_config().max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' precision; query and head are in float32."""
        return self.model.backbone.dtype  # type: ignore[no-any-return]

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
        on_tokens: Sequence[OnToken | None] | None = None,
    ) -> list[EngineOutput | VideoError]:
        """See `descore.engines.Engine.complete`. on_tokens: who watches each clip's chains being written."""
        how: dict[str, Any] = {"limit": limit, "samples": samples, "temperature": temperature, "seed": seed}
        if self.chat.answer is not None and self.chat.answer.is_pairwise:
            from descore.judges.pairwise import complete_pair

            return complete_pair(self.model, clips, prompts, room=self.max_model_len, name=self.source, **how)
        laid_out = self.chat.lay_out_prompts(clips, prompts)
        lengths = laid_out["attention_mask"].sum(dim=1).tolist()
        results: dict[int, EngineOutput | VideoError] = dict(
            find_too_long(clips, lengths, limit=limit, room=self.max_model_len, name=self.source)
        )
        fitting = [index for index in range(len(clips)) if index not in results]
        if results and fitting:
            laid_out = self.chat.lay_out_prompts([clips[i] for i in fitting], [prompts[i] for i in fitting])
        if fitting:
            inputs = {key: value.to(self.device) for key, value in laid_out.items()}
            watching = None if on_tokens is None else [on_tokens[index] for index in fitting]
            written = self._complete(inputs, think=think, on_tokens=watching, **how)
            for index, completions in zip(fitting, written, strict=True):
                results[index] = EngineOutput(prompt_tokens=lengths[index], completions=completions)
        return [results[index] for index in range(len(clips))]

    def _complete(
        self,
        inputs: Inputs,
        *,
        think: bool,
        seed: int,
        **params: Any,  # noqa: ANN401  # of `think_and_score`
    ) -> list[list[Completion]]:
        if not think:
            return [[completion] for completion in score_without_thinking(self.model, inputs)]
        written = think_and_score(self.model, inputs, seeds=[seed] * len(inputs["input_ids"]), **params)
        if self.chat.answer is None:
            return written
        from descore.judges.soft_scores import soften  # released judges alone have them

        return soften(self.model, inputs, written)

    @torch.inference_mode()
    def digest(self) -> str:
        """A digest of settings, rubric and weights, as they are in memory."""
        digest = hashlib.sha256(f"{self.settings!r}\n{self.chat.rubric}".encode())
        for name, tensor in self.model.named_parameters():
            values = tensor.flatten()[:: max(1, tensor.numel() // _VALUES)].float().cpu()
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + values.numpy().tobytes())
        return digest.hexdigest()[:16]


class Scorer:
    """A reward model that is ready to judge videos. Threads may share it: their batches take turns."""

    def __init__(self, model: "DescoreModel | Engine", *, name: str, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected at least 1")
        self.engine: Engine = NativeEngine(model, source=name) if isinstance(model, DescoreModel) else model
        self.name = name
        self.batch_size = batch_size or self.engine.batch_size
        self._turn = threading.Lock()
        if self.settings.trained_on is None and self.settings.paradigm != "generative":
            warnings.warn(
                f"{name}: query and head were never trained; its rewards are noise", DescoreWarning, stacklevel=2
            )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "tiny",
        *,
        paradigm: Paradigm | None = None,
        rubric: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        device_map: Any = None,  # noqa: ANN401
        quantization_config: Any = None,  # noqa: ANN401
        batch_size: int | None = None,
        engine: str = "native",
    ) -> Self:
        """Open a checkpoint: a folder, a hub id, or the bundled name `tiny`; with `paradigm` "generative" also a plain
        backbone, as a zero-shot judge. See DescoreModel.from_pretrained.

        rubric: that of a released judge, such as "videoscore2", with which the checkpoint is opened as generative and
        answers in its own form; or a file of your own (docs/models.md). device_map, quantization_config: transformers'
        own; the latter may be "8bit" or "4bit" (docs/backbones.md).

        engine: what writes chains and reads rewards. "native" is ours; "vllm" opens vLLM in this process, and exports
        the checkpoint for it if need be; an address `http://HOST:PORT/v1` asks a server that has its export. See
        docs/engines.md. What cannot be had from it raises ConfigError. batch_size: clips at a time; None: 8, and 64
        where another engine makes batches of its own.
        In bfloat16 a reward depends a little on the clips beside it; `batch_size` 1, or `dtype` float32, ends that."""
        if engine != "native":
            from descore.engines import open_engine  # scoring by our own engine loads none of it

            if any(own is not None for own in (rubric, device_map, quantization_config)):
                raise ConfigError(f"rubric, device_map and quantization are for engine native, found {engine!r}")
            opened = open_engine(engine, source, paradigm=paradigm, device=device, dtype=dtype)
            return cls(opened, name=str(source), batch_size=batch_size)
        placing = {"device": device, "dtype": dtype, "device_map": device_map}
        placing["quantization_config"] = quantization_config
        model = DescoreModel.from_pretrained(source, paradigm=paradigm, rubric=rubric, **placing)
        model.check_kernels()
        return cls(model, name=str(source), batch_size=batch_size)

    @property
    def settings(self) -> CheckpointSettings:
        """The checkpoint's settings, in the paradigm that it was opened in."""
        return self.engine.settings

    @property
    def chat(self) -> Chat:
        """The checkpoint's token layout."""
        return self.engine.chat

    @property
    def device(self) -> torch.device:
        """Where the engine's weights are, or where clips are prepared for it."""
        return self.engine.device

    @property
    def model(self) -> DescoreModel:
        """The model itself. Other engines keep it to themselves: ConfigError."""
        if not isinstance(self.engine, NativeEngine):
            raise ConfigError(f"{self.name}: engine {self.engine.name} gives no model; open it with engine native")
        return self.engine.model

    def score(self, video: Any, *, prompt: str, fps: float | None = None, **sampling_params: Any) -> Score:  # noqa: ANN401
        """Think about one video, and score it.

        video: a path, bytes, frames with their `fps`, or PIL images with theirs. sampling_params: fields of
        `SamplingParams`.
        A video that cannot be read raises VideoError; a prompt that is no text, or an fps that is no number,
        ConfigError."""
        [result] = self.score_batch([Request(video=video, prompt=prompt, fps=fps)], **sampling_params)
        return result

    def score_batch(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        *,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> list[Score]:
        """Score many videos, each a Request or a (video, prompt). fps: of those that state none.
        The first one that cannot be scored raises its error; `score_each` goes on instead. Each score keeps its clip's
        frames: for more videos than fit in memory take `score_each`."""
        results = []
        for result in self.score_each(requests, fps=fps, **sampling_params):
            if isinstance(result, DescoreError):
                raise result
            results.append(result)
        return results

    def score_each(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        *,
        fps: float | None = None,
        **sampling_params: Any,  # noqa: ANN401
    ) -> Iterator[Score | DescoreError]:
        """Score many videos one batch at a time, in order, as results come. What cannot be scored gives its error in
        its place, and the others go on: VideoError for a video that cannot be read, whose reward is not finite, or of
        which a generative model writes no answer that can be read; ConfigError for a prompt, an fps or a request that
        is none. `requests` is read no further ahead than one batch."""
        params = SamplingParams(**sampling_params).resolved(self.settings.paradigm)
        stream = iter(requests)
        while batch := list(islice(stream, self.batch_size)):
            yield from self._score_one_batch(batch, params, fps=fps)

    def compare(self, a: Any, b: Any, *, prompt: str, fps: float | None = None, **sampling_params: Any) -> Comparison:  # noqa: ANN401
        """How probably people prefer video a to video b, both generated from `prompt`."""
        pair = [Request(video=video, prompt=prompt, fps=fps) for video in (a, b)]
        score_a, score_b = self.score_batch(pair, **sampling_params)
        probability = preference_probability(score_a.reward, score_b.reward)
        return Comparison(a=score_a, b=score_b, probability=probability)

    def read(self, request: Request) -> Clip:
        """The clip of a request, sampled as the checkpoint says."""
        return read_clip(request.video, sampling=self.settings.sampling, fps=request.fps)

    def _score_one_batch(
        self, batch: Sequence[object], sampling_params: SamplingParams, *, fps: float | None
    ) -> list[Score | DescoreError]:
        inputs = [self._read_request(request, fps=fps) for request in batch]
        readable = [each for each in inputs if not isinstance(each, DescoreError)]
        with self._turn:
            scores = iter(self._score_clips(readable, sampling_params) if readable else [])
        return [each if isinstance(each, DescoreError) else next(scores) for each in inputs]

    def _read_request(self, given: object, *, fps: float | None) -> Request | DescoreError:
        """The request with its clip, or why it cannot be scored."""
        try:
            request = _request_of(given, fps=fps)
            return replace(request, video=self.read(request))
        except DescoreError as error:
            return error

    def _score_clips(self, readable: Sequence[Request], sampling_params: SamplingParams) -> list[Score | VideoError]:
        clips, prompts = [one.video for one in readable], [one.prompt for one in readable]
        on_tokens = [one.on_token for one in readable]
        shows = any(on_tokens) and isinstance(self.engine, NativeEngine)
        outputs = self.engine.complete(
            clips,
            prompts,
            think=sampling_params.think != "off",
            limit=sampling_params.max_chain_tokens or self.settings.max_chain_tokens,
            samples=sampling_params.samples,
            temperature=sampling_params.effective_temperature,
            seed=sampling_params.seed,
            **({"on_tokens": on_tokens} if shows else {}),
        )
        if any(on_tokens) and not shows:
            _show_whole_chains(outputs, on_tokens)
        return [
            output if isinstance(output, VideoError) else self._result(clip, prompt, output)
            for clip, prompt, output in zip(clips, prompts, outputs, strict=True)
        ]

    def too_long(self, clips: Sequence[Clip], inputs: Inputs, limit: int) -> dict[int, VideoError]:
        """The rows that leave no room for a chain, and why. A limit that nothing could fit beside is a ConfigError."""
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return find_too_long(clips, lengths, limit=limit, room=self.engine.max_model_len, name=self.name)

    def _result(self, clip: Clip, prompt: str, output: EngineOutput) -> Score | VideoError:
        completions = output.completions
        rewarded = [completion for completion in completions if completion.rewards]
        left_out = [f"{c.flaw}; {_end_of(c)}" for c in completions if not c.rewards]
        if not rewarded:
            return VideoError(clip.source, f"{_no_reward(len(completions))}: {left_out[0]}")
        rewards = [completion.reward for completion in rewarded]
        if not all(map(isfinite, rewards)):
            return VideoError(clip.source, f"{self.name} gives no finite reward ({rewards[0]})")
        return Score(
            clip=clip,
            prompt=prompt,
            model=self.name,
            reward=fmean(rewards),
            score=self._standardize(rewarded),
            std=stdev(rewards) if len(rewards) > 1 else None,
            completions=tuple(rewarded),
            left_out=tuple(left_out),
            prompt_tokens=output.prompt_tokens,
        )

    def _standardize(self, completions: Sequence[Completion]) -> float | None:
        mean, std = self.settings.reward_mean, self.settings.reward_std
        if mean is None or std is None:
            return None
        return fmean((fmean(c.rewards[name] for c in completions) - mean[name]) / std[name] for name in mean)


def _show_whole_chains(outputs: Sequence[EngineOutput | VideoError], on_tokens: Sequence[OnToken | None]) -> None:
    """Give chains that no engine gives while it writes them to who watches them."""
    for output, watch in zip(outputs, on_tokens, strict=True):
        if watch is not None and not isinstance(output, VideoError):
            for sample, completion in enumerate(output.completions):
                all(watch(sample, token) for token in completion.token_ids)


def _request_of(given: object, *, fps: float | None) -> Request:
    """The request, with its prompt checked and an fps that it does not state."""
    if isinstance(given, tuple | list) and len(given) == 2:
        given = Request(video=given[0], prompt=given[1])
    if not isinstance(given, Request):
        kind = f"{type(given).__name__} of {len(given)}" if isinstance(given, tuple | list) else type(given).__name__
        raise ConfigError(f"a request is of type {kind}; expected a Request or a pair (video, prompt)")
    check_prompt(given.prompt)
    return replace(given, fps=fps) if given.fps is None else given


def _no_reward(chains: int) -> str:
    return "the chain gives no reward" if chains == 1 else f"none of {chains} chains gives a reward"


def _end_of(completion: Completion) -> str:
    """How a chain ended, for a message."""
    tail = f"it ends {completion.text[-_QUOTED:]!r}"
    if not completion.truncated:
        return tail
    return f"{tail}, cut off at the limit of {completion.num_tokens - 1}: raise max_chain_tokens"
