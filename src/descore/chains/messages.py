"""The request that a teacher on a server gets for one clip, and what it will take of the server's tokens.

In: a clip, its judging text and the settings. Out: the body of a chat completion, and bounds of its tokens."""

import io
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from descore.chains.config import TeacherConfig
from descore.errors import VideoError
from descore.rubric import PLACEHOLDER, fill_rubric
from descore.types import PREFERENCE_SIGN, Clip, Pair, RatedClip

MessagePart = dict[str, Any]

_VIDEO_PLACE = "{video}"
"""As in `descore.model.chat`, which loads torch."""
_QUALITY = 90
"""JPEG quality of a frame, of 100."""
_BYTES_PER_TOKEN = 4
"""Of English text, about. No token is shorter than a byte, so the bytes are a bound."""
_TURN_TOKENS = 64
"""What a chat template and the sentence before the frames take, at most."""
_TIME_TOKENS = 10
"""What a frame's time takes, at most."""
_TYPES = {".mp4": "mp4", ".m4v": "mp4", ".webm": "webm", ".mov": "quicktime", ".mkv": "x-matroska", ".avi": "x-msvideo"}


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of a request without its answer."""

    likely: int
    most: int


@dataclass(frozen=True, slots=True)
class JudgingText:
    """The rubric for one prompt, in its parts before and behind the video."""

    before: str
    after: str

    @classmethod
    def of(cls, rubric: str, *, prompt: str, note: str = "") -> "JudgingText":
        """`note`: what the teacher may know of people's opinion, behind the rubric. The rubric is split before the
        prompt is filled in, so that a prompt cannot place the video."""
        fill_rubric(rubric, prompt="")
        before, _, after = rubric.rpartition(_VIDEO_PLACE)
        before, after = (part.replace(PLACEHOLDER, prompt) for part in (before, after))
        return cls(before, after + (f"\n\n{note}" if note else ""))

    def around(self, video: Sequence[MessagePart]) -> list[MessagePart]:
        """The parts of a message that has the video in its place."""
        return [*([_text(self.before)] if self.before else []), *video, *([_text(self.after)] if self.after else [])]

    @property
    def size(self) -> int:
        """Bytes in UTF-8."""
        return len((self.before + self.after).encode("utf-8", "surrogatepass"))


def label_note(record: Pair | RatedClip, side: str | None) -> str:
    """People's preference or ratings of one clip in words; empty where there are none."""
    if isinstance(record, Pair):
        facts = [_preference_words(name, choice, side) for name, choice in record.preference.items()]
        annotations = record.a if side == "a" else record.b
        facts += [f"{name}: rated {value:g}" for name, value in annotations.ratings.items()]
    else:
        facts = [f"{name}: rated {value:g}" for name, value in record.ratings.items()]
    return _note("What people say of this video", facts)


def comment_note(comment: str | None) -> str:
    """What people wrote about a clip; empty where they wrote nothing."""
    return _note("What people wrote about this video", [comment] if comment else [])


def _preference_words(name: str, choice: Any, side: str | None) -> str:  # noqa: ANN401  # a Preference
    sign = PREFERENCE_SIGN[choice] * (1 if side == "a" else -1)
    words = {
        1: "they prefer it to another video of the same prompt",
        -1: "they prefer another video of the same prompt",
    }
    return f"{name}: {words.get(sign, 'to them it is as good as another video of the same prompt')}"


def _note(heading: str, facts: Sequence[str]) -> str:
    if not facts:
        return ""
    listed = "\n".join(f"- {fact}" for fact in facts)
    return f"{heading}, which your judgement should explain but never mention:\n{listed}"


def chat_body(teacher: TeacherConfig, content: Sequence[MessagePart], *, seed: int, max_tokens: int) -> dict[str, Any]:
    """The fields of a chat completion, without those of streaming."""
    chosen = {
        "temperature": teacher.temperature,
        "top_p": teacher.top_p,
        "seed": seed if teacher.send_seed else None,
        teacher.max_tokens_name: max_tokens,
    }
    return {
        "model": teacher.model,
        "messages": [{"role": "user", "content": list(content)}],
        **{name: value for name, value in chosen.items() if value is not None},
        **teacher.extra_body,
    }


def frame_parts(clip: Clip) -> list[MessagePart]:
    """Frames as images with their times between them."""
    parts = [_text(f"A video of {clip.duration:.2f} s. Frames of it, each behind its time:")]
    for time, frame_HWC in zip(clip.times, clip.frames, strict=True):
        parts += [_text(f"{time:.2f} s"), {"type": "image_url", "image_url": {"url": _jpeg(frame_HWC)}}]
    return parts


def video_parts(path: Path) -> list[MessagePart]:
    """The file itself as a video_url. VideoError if it cannot be read."""
    try:
        content = b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise VideoError(str(path), f"cannot be opened ({error.strerror or error})") from None
    url = f"data:video/{_TYPES.get(path.suffix.lower(), 'mp4')};base64,{content}"
    return [{"type": "video_url", "video_url": {"url": url}}]


def estimate_tokens(clip: Clip, text: JudgingText, teacher: TeacherConfig) -> TokenEstimate:
    """What a request takes. A video is counted as if its frames were sent."""
    frames = len(clip.times) * ((teacher.frame_tokens or _frame_tokens(*clip.size)) + _TIME_TOKENS)
    return TokenEstimate(
        likely=frames + math.ceil(text.size / _BYTES_PER_TOKEN), most=frames + text.size + _TURN_TOKENS
    )


def _frame_tokens(width: int, height: int) -> int:
    """The larger of what Qwen's models count for an image (28 x 28 pixels a token) and OpenAI's (85, and 170 for each
    tile of 512 x 512 pixels)."""
    tiles = math.ceil(width / 512) * math.ceil(height / 512)
    return max(math.ceil(width / 28) * math.ceil(height / 28), 85 + 170 * tiles)


def _text(text: str) -> MessagePart:
    return {"type": "text", "text": text}


def _jpeg(frame_HWC: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
