"""The bodies of requests and of answers, as pydantic models; OpenAPI is written from them.

A video is one of: a path below the server's media root, a file in base64, frames with their fps, or an address of a
host that the server may fetch from. In a multipart form it is a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from descore.scorer import SamplingParams
from descore.serving.problems import Kind
from descore.serving.settings import ServerSettings
from descore.types import Completion, Mark, Score, Think, preference_probability
from descore.video.reader import HIGHEST_FPS, LOWEST_FPS

SOURCES = ("path", "base64", "frames", "url")
"""The keys of a video, one of which it has."""

_LARGEST_SEED = 2**63 - 1
_HOTTEST = 100.0
_SCORE_EXAMPLE: JsonDict = {
    "video": "clip.mp4", "prompt": "a red ball rolls to the left", "model": "tiny", "reward": 1.42, "score": 0.31,
    "std": None, "rewards": {"overall": 1.42}, "thinking": "The ball is red ...",
    "marks": {"subject": 2, "camera": None}, "unknown": [], "overall": 4.1, "partial_overall": False,
    "truncated": False, "left_out": 0, "fps": 16.0, "times": [0.0, 0.5],
}  # fmt: skip


def _example(example: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class VideoInput(_Body):
    """One video, in one of four ways."""

    model_config = _example({"path": "clips/rabbit.mp4"})

    path: str | None = None
    """A file below the server's media root."""
    base64: str | None = Field(default=None, repr=False)
    """The content of a file: mp4, mov, mkv, webm, avi, gif."""
    frames: list[str] | None = Field(default=None, repr=False, min_length=1)
    """Pictures in base64, PNG, JPEG or WebP, all of one size, in order."""
    fps: float | None = Field(default=None, ge=LOWEST_FPS, le=HIGHEST_FPS)
    """Frames per second, of `frames`."""
    times: list[Annotated[float, Field(ge=0)]] | None = Field(default=None, repr=False)
    """Seconds of `frames` that a client has chosen and scaled already, as the model's sampling says; fps is then that
    of the source. Without times frames are chosen and scaled here."""
    frame_numbers: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, repr=False)
    """Numbers of such frames in the source, where the model's sampling rule counts frames."""
    url: str | None = Field(default=None, max_length=4096)
    """An address of http or https, of a host that the server was started with (`--allow-url`)."""
    name: str | None = Field(default=None, max_length=255)
    """What answers and messages call the video."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.upload is not None:
            return self
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"has {' and '.join(given) or 'no video'}; expected one of {', '.join(SOURCES)}")
        if (self.frames is None) != (self.fps is None):
            raise ValueError("fps goes with frames: a file states its own times, and frames state none")
        for name, values in (("times", self.times), ("frame_numbers", self.frame_numbers)):
            if values is not None and (values != sorted(values) or len(values) != len(self.frames or ())):
                raise ValueError(f"{name} has {len(values)} numbers; expected one for each frame, in order")
        if self.frame_numbers is not None and self.times is None:
            raise ValueError("frame_numbers goes with times")
        return self

    @property
    def upload(self) -> Path | None:
        """The file that came in a form."""
        return None


class UploadedVideo(VideoInput):
    """A file that came in a form."""

    file: Path = Field(exclude=True)

    @property
    def upload(self) -> Path | None:
        """Where it is stored."""
        return self.file


class VideoBody(_Body):
    """What all requests about videos have: the model, and how long the client waits."""

    model: str | None = None
    """One of GET /v1/models. Default: the first."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds until the answer is of no use: then 503. Default, and at most: the server's."""

    def inputs(self) -> Sequence[VideoInput]:
        """All videos of the request."""
        raise NotImplementedError

    def beyond(self, bounds: ServerSettings) -> str | None:
        """What is beyond a server's bounds, in words."""
        frames = max(len(video.frames or ()) for video in self.inputs())
        if frames > bounds.max_frames:
            return f"a video of {frames:,} frames; this server takes {bounds.max_frames:,}"
        return None


class SamplingBody(VideoBody):
    """What all requests for scores have: a video or more, and how the model thinks."""

    think: Think | None = None
    """"on" writes a chain before the reward is read, "off" reads it at once. Default: as the model was trained."""
    samples: int = Field(default=1, ge=1)
    """Chains for each clip; several give the reward a standard deviation."""
    temperature: float | None = Field(default=None, ge=0, le=_HOTTEST)
    """0 always takes the likeliest token. Default: 0 for one sample, 1 for several."""
    seed: int = Field(default=0, ge=0, le=_LARGEST_SEED)
    """The same seed gives the same chains."""
    max_chain_tokens: int | None = Field(default=None, ge=1)
    """Tokens after which a chain is ended. Default: as the checkpoint says."""
    chains: bool = False
    """Whether an answer has all chains, with their tokens."""

    def sampling_params(self) -> SamplingParams:
        """ConfigError for parameters that exclude each other."""
        names = ("think", "samples", "temperature", "seed", "max_chain_tokens")
        return SamplingParams(**{name: getattr(self, name) for name in names})

    def prompts(self) -> Sequence[str]:
        """All prompts of the request."""
        raise NotImplementedError

    def beyond(self, bounds: ServerSettings) -> str | None:
        """What is beyond a server's bounds, in words."""
        longest = max(map(len, self.prompts()))
        if longest > bounds.max_prompt:
            return f"a prompt of {longest:,} characters; this server takes {bounds.max_prompt:,}"
        if self.samples > bounds.max_samples:
            return f"samples is {self.samples}; this server takes {bounds.max_samples}"
        if (self.max_chain_tokens or 0) > bounds.max_chain_tokens:
            return f"max_chain_tokens is {self.max_chain_tokens}; this server takes {bounds.max_chain_tokens}"
        return super().beyond(bounds)


class OnePrompt(SamplingBody):
    """Videos of one prompt."""

    prompt: str

    def prompts(self) -> Sequence[str]:
        """One."""
        return [self.prompt]


class ScoreRequest(OnePrompt):
    """A video to score, and the prompt that it was generated from."""

    model_config = _example({"prompt": "a rabbit sniffs a flower", "video": {"path": "clips/rabbit.mp4"}, "samples": 4})

    video: VideoInput
    stream: bool = False
    """Whether the answer is a stream of events: `chain` with a piece of its text, as it is written, and then `score` or
    `error`."""

    def inputs(self) -> Sequence[VideoInput]:
        """In the order of the results."""
        return [self.video]


class CompareRequest(OnePrompt):
    """Two videos of one prompt."""

    model_config = _example({"prompt": "a rabbit sniffs a flower", "a": {"path": "a.mp4"}, "b": {"path": "b.mp4"}})

    a: VideoInput
    b: VideoInput

    def inputs(self) -> Sequence[VideoInput]:
        """In the order of the results."""
        return [self.a, self.b]


class RankRequest(OnePrompt):
    """Several videos of one prompt."""

    model_config = _example({"prompt": "a rabbit sniffs a flower", "videos": [{"path": "a.mp4"}, {"path": "b.mp4"}]})

    videos: list[VideoInput] = Field(min_length=1)

    def inputs(self) -> Sequence[VideoInput]:
        """In the order of the results."""
        return self.videos


class BatchItem(_Body):
    """A video of a batch, with its prompt."""

    prompt: str
    video: VideoInput


class BatchRequest(SamplingBody):
    """Videos of any prompts."""

    model_config = _example({"items": [{"prompt": "a rabbit", "video": {"path": "a.mp4"}}], "think": "off"})

    items: list[BatchItem] = Field(min_length=1)

    def prompts(self) -> Sequence[str]:
        """One for each item."""
        return [item.prompt for item in self.items]

    def inputs(self) -> Sequence[VideoInput]:
        """In the order of the results."""
        return [item.video for item in self.items]


RequestBody = TypeVar("RequestBody", bound=VideoBody)


class ServedChain(_Body):
    """One chain of a video, and its rewards."""

    token_ids: list[int] = Field(repr=False)
    """The end of turn included."""
    text: str
    truncated: bool
    flaw: str | None
    """Why no marks can be read from it, although the model thought."""
    rewards: dict[str, float]
    """By named dimension."""

    @classmethod
    def of(cls, completion: Completion) -> Self:
        """Of a chain."""
        return cls(
            **{name: getattr(completion, name) for name in ("text", "truncated", "flaw")},
            token_ids=list(completion.token_ids),
            rewards=dict(completion.rewards),
        )


class ServedScore(_Body):
    """A video's reward; the keys are those of `descore score --json`."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [_SCORE_EXAMPLE]})

    video: str
    """What the request calls it."""
    prompt: str
    model: str
    reward: float
    """Mean over the chains. Only differences between videos of one prompt mean something."""
    score: float | None
    """The reward, standardized by the checkpoint's mean and deviation; null if it stores none."""
    std: float | None
    """Sample standard deviation of the chains' rewards; null for a single one."""
    rewards: dict[str, float]
    """By named dimension."""
    thinking: str | None
    """The chain whose reward lies nearest to the mean; null without thinking."""
    marks: dict[str, Mark] | None
    """By dimension of the rubric: 2 right, 1 partly, 0 wrong, null not asked or unknown."""
    unknown: list[str] | None
    """Of these, the dimensions that cannot be known."""
    overall: float | None
    """1.00 to 5.00, as the chain ends."""
    partial_overall: bool | None
    """Whether `overall` is without a primary dimension, which cannot be known."""
    truncated: bool
    """Whether a chain was cut at its limit."""
    left_out: int
    """Chains without a reward."""
    fps: float | None
    """Of the source."""
    times: list[float]
    """Seconds of the frames that the model saw."""
    prompt_tokens: int = 0
    """Tokens that the model read, its frames included; 0 where its engine does not count them."""
    chain_tokens: int = 0
    """Tokens of all chains."""
    chains: list[ServedChain] | None = Field(default=None, repr=False)
    """All chains that have a reward, where the request asks for them."""
    reasons_left_out: list[str] | None = Field(default=None, repr=False)
    """Why others have none, where the request asks for chains."""

    @classmethod
    def of(cls, score: Score, *, model: str, chains: bool = False) -> Self:
        """Of a score. model: its name in this server."""
        tokens = sum(completion.num_tokens for completion in score.completions)
        own: dict[str, object] = {
            "model": model,
            "rewards": score.rewards,
            "prompt_tokens": score.prompt_tokens,
            "chain_tokens": tokens,
        }
        if chains:
            own["chains"] = list(map(ServedChain.of, score.completions))
            own["reasons_left_out"] = list(score.left_out)
        return cls.model_validate({**score.to_dict(), **own})


class Problem(_Body):
    """Why there is no result."""

    kind: Kind
    message: str


class ErrorBody(_Body):
    """The one form of errors."""

    model_config = _example({"error": {"kind": "no_video", "message": "clip.mp4: the file is empty"}})

    error: Problem


class CompareAnswer(_Body):
    """Which of two videos people prefer, and how probably."""

    a: ServedScore
    b: ServedScore
    probability: Annotated[float, Field(ge=0, le=1)]
    """That a is preferred to b."""

    @classmethod
    def of(cls, a: ServedScore, b: ServedScore) -> Self:
        """Of two scores."""
        return cls(a=a, b=b, probability=preference_probability(a.reward, b.reward))


class RankPlace(_Body):
    """A place in a ranking."""

    place: int
    """1 is the best."""
    index: int
    """Of the video in the request, from 0."""
    score: ServedScore


class RankFailure(_Body):
    """A video that has no place."""

    index: int
    error: Problem


class RankAnswer(_Body):
    """Videos best first; equal rewards keep the order of the request."""

    places: list[RankPlace]
    failed: list[RankFailure]


class BatchLine(_Body):
    """A line of a batch's answer: a score or an error. Lines come as they are ready, in any order."""

    index: int
    """Of the item in the request, from 0."""
    score: ServedScore | None = None
    error: Problem | None = None


class ModelCard(_Body):
    """A model of the server."""

    model_config = ConfigDict(extra="ignore")

    name: str
    source: str
    """The checkpoint, as it was named when the server was started."""
    default: bool
    """Whether requests without `model` are scored by it."""
    paradigm: Literal["descore", "discriminative", "generative"]
    dimensions: list[str]
    device: str
    dtype: str
    max_chain_tokens: int
    frames_per_second: float
    """That are sampled from a video."""
    max_frames: int
    settings: str = Field(repr=False)
    """All of the checkpoint's settings, as JSON."""


class OpenAIModel(_Body):
    """A model in the form of OpenAI's API."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """When the server was started, in seconds since 1970."""
    owned_by: str = "descore"


class ModelList(_Body):
    """The models of the server, the default one first; `data` has their names as OpenAI's clients read them."""

    models: list[ModelCard]
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class State(_Body):
    """Whether the server answers."""

    status: Literal["alive", "ready"]


class Health(State):
    """Whether the process answers at all."""

    models: dict[str, Literal["ready", "failed"]] = Field(default_factory=dict)
    """By name. The engine of one that failed is opened again by its next request."""
    decoding: dict[str, int] = Field(default_factory=dict)
    """Processes that decode: how many there are to be, how many live, and how many have died and were started again."""
    rewards: dict[str, list[str]] | None = None
    """With the dialect of UniRL: the state of each reward by its name."""
