"""What a server accepts, and who may ask: the bounds of requests, the token, and the hosts.

In: options. Out: checked `ServerSettings`, or one error that lists what is wrong."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from descore.config_model import ConfigModel, PathText
from descore.errors import ConfigError
from descore.serving.dialects import DIALECTS
from descore.video.sampling import VideoSampling

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
"""Names and IPv4 addresses. Others do not name hosts whose videos are fetched."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class ServerSettings(ConfigModel):
    """The bounds of a server. A request beyond one of them is refused before work is done for it."""

    api_key: str | None = None
    """The token that clients send as `Authorization: Bearer`; None: none is asked for."""
    allow_urls: tuple[str, ...] = ()
    """Hosts that videos are fetched from, HOST or HOST:PORT; addresses of any other are refused."""
    local_only: bool = False
    """Answer only requests whose Host header names this machine, so that no web page reaches the server by a name of
    its own (DNS rebinding)."""
    media_root: PathText | None = None
    """The folder below which files of the server may be named; None: none may."""
    workers: PositiveInt = 1
    """Processes that decode videos."""
    window: NonNegativeFloat = 0.01
    """Seconds that the first clip of a batch waits for others, where the model is idle."""
    max_queue: PositiveInt = 64
    """Clips in the server at a time, those that are decoded and scored included. Beyond it requests are refused,
    and beyond as many bodies that are being received."""
    timeout: PositiveFloat = 120.0
    """Seconds that a request may take; it may ask for less."""
    upload_seconds: PositiveFloat = 60.0
    """Seconds until a request's body must be here."""
    max_upload: PositiveInt = 64 * 2**20
    """Bytes of a request's body."""
    max_prompt: PositiveInt = 10_000
    """Characters of a prompt."""
    max_samples: PositiveInt = 16
    """Chains of a clip."""
    max_chain_tokens: PositiveInt = 4096
    """Tokens of a chain that a request may ask for."""
    max_source_pixels: PositiveInt = 4096 * 2304
    """Pixels of a source frame; a file that states more is not decoded."""
    max_decode: PositiveInt = 1920 * 1080 * 60 * 60
    """Pixels of a source frame times its frames: a minute of full HD at 60 frames per second."""
    max_frames: PositiveInt = 2048
    """Pictures of a video that comes as frames."""
    decode_seconds: PositiveFloat = 20.0
    """Seconds that reading a video may take."""
    dialects: dict[str, PositiveFloat | None] = Field(default_factory=dict)
    """Protocols of other reward services that are spoken too, by name, each with the frames per second of frames that
    its clients send; None: requests state it."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A token is text that a header can hold, and a media root is a folder."""
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            yield "api_key", "must be printable ASCII, and not empty"
        elif self.api_key is not None and self.api_key != self.api_key.strip():
            yield "api_key", "must not begin or end with a space"
        if self.media_root is not None and not self.media_root.is_dir():
            yield "media_root", f"is {self.media_root}, which is no folder"
        if odd := [host for host in self.allow_urls if not _HOST.fullmatch(host)]:
            yield "allow_urls", f"has {odd[0]!r}; expected HOST or HOST:PORT, such as videos.example.com"
        if unknown := [name for name in self.dialects if name not in DIALECTS]:
            yield "dialects", f"has {unknown[0]!r}; expected some of {', '.join(DIALECTS)}"

    def bounded(self, sampling: VideoSampling) -> VideoSampling:
        """A checkpoint's sampling within these bounds. Which frames are taken does not change."""
        return sampling.model_copy(
            update={
                "max_source_pixels": min(sampling.max_source_pixels, self.max_source_pixels),
                "max_decode": min(sampling.max_decode, self.max_decode),
                "timeout": min(sampling.timeout, self.decode_seconds),
            }
        )

    def file_of(self, name: str) -> Path:
        """The file of a name below the media root, with links resolved. ConfigError for one outside."""
        if self.media_root is None:
            raise ConfigError("video.path: this server reads no files of its own; upload the video")
        root = self.media_root.resolve()
        try:
            file = (root / name).resolve()
        except (OSError, ValueError, RuntimeError):  # a null byte, or links in a circle
            file = root.parent
        if not file.is_relative_to(root):
            raise ConfigError("video.path: outside the media root; expected a path below it")
        return file


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def check_access(host: str, *, api_key: str | None, no_auth: bool) -> None:
    """ConfigError where other machines could ask without a token, and nobody has said that they may."""
    if api_key is not None and no_auth:
        raise ConfigError("--no-auth and a token exclude each other; --api-key or DESCORE_API_KEY gives one")
    if api_key is None and not no_auth and not is_loopback(host):
        raise ConfigError(
            f"--host {host} is reached from other machines; set a token in DESCORE_API_KEY (or --api-key), or let "
            "everyone in with --no-auth"
        )
