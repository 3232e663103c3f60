"""Settings of `descore chains collect`, in groups:

    data        what is asked about, under which rubric, and how its clips are read
    teacher     who writes the chains, and how
    limits      how fast, how long and for how much money
    filters     which chains are kept (`descore.chains.filtering`)
    run         the folder of the run

Names of OpenAI's API are its own."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from descore.chains.filtering import FilterConfig
from descore.chains.records import Sees
from descore.config_model import ConfigModel, PathText, UnitInterval
from descore.video.sampling import VideoSampling

TeacherKind = Literal["openai", "openai-batch", "native"]
"""A server that speaks OpenAI's API; files for such a server's batches; or a model in this process."""
VideoForm = Literal["frames", "video"]

_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
_SECRET = (
    "is no name of a variable (capitals, digits and _); put the key into the environment and name its variable here"
)


class CollectDataConfig(ConfigModel):
    """What is asked about, under which rubric, and how its clips are read."""

    table: PathText
    """Table (CSV, JSON Lines, JSON or Parquet) of pairs (prompt, video_a, video_b, preference ...), of rated clips
    (prompt, video, rating ...), or of prompts and videos alone."""
    limit: PositiveInt | None = None
    """Only so many rows, from the first on."""
    checkpoint: str | None = None
    """Folder, hub id or bundled name of the checkpoint that is to learn the chains: its rubric and its sampling are
    used. null: those of a native teacher, or the built-in ones."""
    rubric: PathText | None = None
    """Text file of the judging text, with {prompt} once. null: as `checkpoint` says."""
    sampling: VideoSampling | None = None
    """How a video becomes the frames that the teacher sees. null: as `checkpoint` says."""


class TeacherConfig(ConfigModel):
    """Who writes the chains, and how."""

    kind: TeacherKind = "openai"
    """openai: a server that speaks OpenAI's chat completions. openai-batch: files for the batches of such a server,
    which the next run reads back. native: a checkpoint or a plain backbone in this process."""
    model: str
    """The model's name on the server; of a native teacher a folder, a hub id, or the bundled name tiny."""
    base_url: str | None = None
    """The server's address, http://HOST:PORT/v1. null: OpenAI's own."""
    api_key_env: str | None = None
    """The variable of the environment that holds the key; the key itself never stands in a file. null: the server asks
    for none."""
    video: VideoForm = "frames"
    """frames: images with their times between them, which every server with vision takes. video: the file itself as a
    video_url, which vLLM and some others take; the server then chooses the frames."""
    temperature: NonNegativeFloat | None = 1.0
    """Of sampling. null: not sent, the server's own; 1 for a native teacher."""
    top_p: UnitInterval | None = None
    """Nucleus sampling by a server. null: not sent."""
    max_completion_tokens: PositiveInt | None = None
    """Tokens that an answer may have, reasoning included. What is longer is cut, and the filters reject it. null:
    2,048; of a native teacher as its checkpoint says."""
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """The name that the server knows this limit by; older servers know max_tokens."""
    seed: NonNegativeInt = 0
    """The seed of a clip's first chain; each further one has the next. A server may pass it over."""
    send_seed: bool = True
    """Whether a server gets the seed; some refuse a request that has one."""
    extra_body: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of each request, such as reasoning_effort."""
    price_in: NonNegativeFloat | None = None
    """What a million tokens of requests cost, in a currency of your choice. null: not known, costs are 0."""
    price_out: NonNegativeFloat | None = None
    """What a million tokens of answers cost, reasoning included."""
    batch_discount: UnitInterval = 0.5
    """Share of these prices that a batch file costs less."""
    frame_tokens: PositiveInt | None = None
    """Tokens of one frame, at most, for estimates and reservations. null: by its size, as OpenAI's and Qwen's models
    count, the larger of both."""
    device: str | None = None
    """Of a native teacher: cpu, cuda, cuda:1, mps. null: a GPU if there is one."""
    batch_size: PositiveInt = 8
    """Clips that a native teacher is asked about together."""

    @property
    def has_prices(self) -> bool:
        """Whether costs are known."""
        return self.price_in is not None and self.price_out is not None

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """No key in a file, an address that can be asked, and prices of both directions or none."""
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            yield "api_key_env", _SECRET
        if self.base_url is not None and (wrong := _wrong_address(self.base_url)):
            yield "base_url", wrong
        if self.kind == "native" and (self.base_url or self.api_key_env):
            yield "base_url", "and api_key_env are of a server; leave them out for a native teacher"
        if (self.price_in is None) != (self.price_out is None):
            missing = "price_out" if self.price_out is None else "price_in"
            yield missing, "is missing; give the prices of both directions, or neither"
        if taken := sorted(
            {"model", "messages", "stream", "n", "seed", "temperature", "top_p"} & self.extra_body.keys()
        ):
            yield "extra_body", f"has {taken[0]}, which has a key of its own here or is chosen by descore"


def _wrong_address(address: str) -> str | None:
    """Why this is no address of a server. It is not quoted: it may hold a password."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "is no address; expected http://HOST:PORT/v1"
    if parts.username is not None or parts.password is not None or parts.query:
        return "holds a user, a password or a query; a key comes from the environment only, by api_key_env"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "is no address; expected http://HOST:PORT/v1"
    return None


class LimitsConfig(ConfigModel):
    """How fast, how long and for how much money a server is asked."""

    concurrency: PositiveInt = 8
    """Requests under way at a time."""
    requests_per_minute: PositiveInt | None = None
    """null: as many as concurrency allows."""
    tokens_per_minute: PositiveInt | None = None
    """Of requests and answers together. null: as many as concurrency allows."""
    timeout: PositiveFloat = 300.0
    """Seconds that one answer may take."""
    retries: NonNegativeInt = 6
    """How often a request is repeated after 429, 5xx, a timeout or a stream that was cut, each time after a longer
    while, and never before the server's Retry-After."""
    max_failures: PositiveInt = 10
    """The run stops after so many requests in a row that failed."""
    deadline: PositiveFloat | None = None
    """Minutes after which nothing more is asked. What is under way still comes in."""
    budget: NonNegativeFloat | None = None
    """Money that the whole run may cost, over all its sessions. What is under way is reserved, so that it is never
    passed."""


class CollectRunConfig(ConfigModel):
    """The folder of the run."""

    out: PathText
    """The folder. One that holds a run of other settings is refused."""
    reuse: Annotated[tuple[PathText, ...], Field(strict=False)] = ()
    """Folders of other runs, whose answers to equal requests are taken over: after rows were added to the table,
    say."""


class CollectConfig(ConfigModel):
    """Settings of `descore chains collect`."""

    data: CollectDataConfig
    """What is asked about."""
    teacher: TeacherConfig
    """Who writes the chains, and how."""
    num_chains: PositiveInt = 1
    """Chains that are asked for each clip; the filters choose among them."""
    sees: Sees = "nothing"
    """What the teacher is shown beside clip and prompt. nothing: it judges blind. label: people's preference or rating.
    comments: the cell in the table's column comments (comments_a, comments_b for pairs). A teacher that sees the label
    argues for it: agreement with people then says nothing about its chains."""
    limits: LimitsConfig = LimitsConfig()
    """How fast, how long and for how much money a server is asked."""
    filters: FilterConfig = FilterConfig()
    """Which chains are kept. They may change: the same command then filters anew, and asks nothing."""
    run: CollectRunConfig
    """The folder of the run."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A budget needs prices, and several chains need chance."""
        if self.limits.budget is not None and not self.teacher.has_prices:
            yield "limits.budget", "needs teacher.price_in and teacher.price_out, the cost of a million tokens"
        if self.num_chains > 1 and self.teacher.temperature == 0:
            yield "teacher.temperature", "is 0, and several chains are then all the same; raise it or ask for one"


MAY_CHANGE = (
    "data.table",  # its contents are compared
    "data.limit",
    "data.checkpoint",  # the rubric and the sampling that come of it are compared
    "data.rubric",
    "data.sampling",
    "num_chains",
    "teacher.kind",  # the engine is compared: a batch file and a server give the same answers
    "teacher.base_url",
    "teacher.api_key_env",
    "teacher.price_in",
    "teacher.price_out",
    "teacher.batch_discount",
    "teacher.frame_tokens",
    "teacher.device",
    "teacher.batch_size",
    "limits.",
    "run.",
    "filters.",
)
"""Keys, and beginnings of keys, that may differ when a run is resumed: no answer depends on them."""
