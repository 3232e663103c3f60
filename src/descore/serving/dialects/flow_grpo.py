"""The pickled protocol of flow_grpo's reward servers, which verl-omni's HTTP scorer speaks too.

    POST /  pickle of {"images": [jpeg, ...], "prompts": [text, ...]}  ->  pickle of {"outputs": [...], "scores": [...]}

flow_grpo reads `outputs` and verl-omni `scores`. Both send pictures as JPEG, verl-omni the first frame of a video only.
For videos an item may also be a list of pictures, the bytes of a file, or frames as an array, uint8 or floats from 0 to
1: (F, H, W, C) each, or one array (N, F, H, W, C) of all. An error is a pickle of {"error": text}; both clients then
raise. flow_grpo asks again on status 500 alone, so a busy server answers 500; nothing else but a fault of the server
does. Facts: flow_grpo/rewards.py, yifan123/reward-server, verl_omni/utils/reward_score/http_scorer_client.py."""

import asyncio
import base64
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from descore.errors import ConfigError, short_repr
from descore.rewards.adapter import array_layout
from descore.rewards.frames import split_videos
from descore.serving.dialects.clips import DialectCall, DialectRoute, clips_of, video_input
from descore.serving.dialects.pickles import read_pickle
from descore.serving.problems import STATUS, ServiceError
from descore.serving.schema import VideoInput
from descore.serving.service import Service

_MEDIA_TYPE = "application/octet-stream"
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
"""What JPEG, PNG and WebP begin with; AVI begins as WebP does."""


def pickled_routes(service: Service, *, dialect: str) -> list[DialectRoute]:
    """The route of flow_grpo or verl-omni."""
    return [
        DialectRoute(method="POST", path="/", endpoint=partial(_score, service=service, dialect=dialect), form=_error)
    ]


async def _score(request: HttpRequest, *, service: Service, dialect: str) -> Response:
    """Rewards of pickled pictures or videos."""
    call = DialectCall.of(request, service, dialect=dialect)
    fields = await asyncio.to_thread(read_pickle, await request.body())
    if not isinstance(fields, dict) or "images" not in fields or "prompts" not in fields:
        found = ", ".join(fields) if isinstance(fields, dict) else short_repr(fields)
        raise ServiceError("request", f"the pickle has {found}; expected a dict with images and prompts")
    with TemporaryDirectory(dir=service.folder, ignore_cleanup_errors=True) as folder:
        videos = await _videos(call, fields["images"], folder=Path(folder))
        rewards = await call.rewards(clips_of(videos, fields["prompts"]))
    return _pickled({"outputs": rewards, "scores": rewards})


def _pickled(answer: dict[str, Any], *, status: int = 200) -> Response:
    return Response(pickle.dumps(answer), media_type=_MEDIA_TYPE, status_code=status)


def _error(error: ServiceError) -> Response:
    status = STATUS["internal"] if error.kind == "busy" else error.status
    return _pickled({"error": str(error)}, status=status)


async def _videos(call: DialectCall, images: Any, *, folder: Path) -> list[VideoInput]:  # noqa: ANN401  # a pickle's
    if not isinstance(images, list | np.ndarray) or (isinstance(images, np.ndarray) and not images.ndim):
        raise ServiceError("request", f"images is {short_repr(images)}; expected a list or an array")
    return [await _video(call, image, name=f"images[{index}]", folder=folder) for index, image in enumerate(images)]


async def _video(call: DialectCall, item: Any, *, name: str, folder: Path) -> VideoInput:  # noqa: ANN401
    if isinstance(item, np.ndarray):
        return await call.array(_frames(item, name=name), folder=folder, name=name, fps=None)
    if isinstance(item, bytes | bytearray):
        is_picture = item.startswith(_PICTURES) and item[8:12] != b"AVI "
        return (
            call.pictures(_in_base64([item]), name=name) if is_picture else video_input(base64=_text(item), name=name)
        )
    if isinstance(item, list) and all(isinstance(frame, bytes | bytearray) for frame in item):
        return call.pictures(_in_base64(item), name=name)
    raise ServiceError("request", f"{name} is {short_repr(item)}; expected a picture's or a file's bytes, or frames")


def _frames(item: NDArray[Any], *, name: str) -> NDArray[Any]:
    """The frames (T, C, H, W) of a video (T, H, W, C) or a picture (H, W, C)."""
    frames_TCHW: NDArray[Any]
    try:
        [frames_TCHW] = split_videos(item[None], layout=array_layout(item[None]))
    except ConfigError as error:
        raise ServiceError("request", f"{name}: {error}") from None
    return frames_TCHW


def _in_base64(pictures: Sequence[bytes | bytearray]) -> list[str]:
    return [_text(picture) for picture in pictures]


def _text(content: bytes | bytearray) -> str:
    return base64.b64encode(content).decode()
