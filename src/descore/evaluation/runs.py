"""Run directories: score every clip of a benchmark once, keep a record of each, and read it all back.

    run.json        what was run: the config, which a resumed run must equal, and when it started
    labels.json     what people say: title, licence, published figures, rated clips, pairs
    clips.jsonl     a record per clip (RUN_KEYS), append-only; of a clip's records the last one counts
    results.json    the statistics, written when every clip has been tried
    frames/N.jpg    strips of the clips in the worst mistakes; N is the clip's place in labels.json

In: a judge, a benchmark's judgements, a folder. Out: a `Run`. Knows files and when a run may go on; knows nothing of
models, and nothing of what a report does with a run."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from descore.errors import ConfigError, DataError, DescoreError
from descore.evaluation.records import to_plain
from descore.evaluation.results import Key, results_of
from descore.io import (
    append_records,
    atomic_directory,
    atomic_write,
    lock_directory,
    make_directory,
    read_records,
)
from descore.types import Clip, Pair, RatedClip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.evaluation.benchmarks import Judgements


_FRAMES_SHOWN, HEIGHT, GAP, QUALITY = 4, 96, 4, 80
"""Frames in a strip; its height and the space between frames, in pixels; JPEG quality of 100."""

_SAMPLING = VideoSampling(
    fps=0.01, min_frames=_FRAMES_SHOWN, max_frames=_FRAMES_SHOWN, min_pixels=1, max_pixels=512 * 512, size_multiple=1
)


def write_strips(
    folder: Path, clips: Sequence[RatedClip], *, pairs: Sequence[Pair], open_: Callable[[str], Any]
) -> None:
    """Write N.jpg for both clips of each pair, N being the clip's place among `clips`. Strips of an earlier writing are
    replaced; a video that cannot be read has none."""
    place = {(clip.video, clip.prompt): index for index, clip in enumerate(clips)}
    shown = {place[video, pair.prompt]: video for pair in pairs for video in (pair.video_a, pair.video_b)}
    with atomic_directory(folder) as aside:
        for index, video in sorted(shown.items()):
            try:
                clip = _read(open_(video))
            except DescoreError:
                continue  # its record says already what is wrong with it
            draw_strip(clip).save(aside / f"{index}.jpg", quality=QUALITY)


def draw_strip(clip: Clip) -> Image.Image:
    """Up to _FRAMES_SHOWN frames side by side, evenly spaced from the first to the last, HEIGHT pixels high."""
    chosen = np.unique(np.linspace(0, len(clip.frames) - 1, _FRAMES_SHOWN).round().astype(int))
    width = max(1, round(HEIGHT * clip.size[0] / clip.size[1]))
    strip = Image.new("RGB", (len(chosen) * (width + GAP) - GAP, HEIGHT), "white")
    for place, index in enumerate(chosen):
        strip.paste(Image.fromarray(clip.frames[index]).resize((width, HEIGHT)), (place * (width + GAP), 0))
    return strip


def _read(video: Any) -> Clip:  # noqa: ANN401  # whatever a benchmark opens
    return video if isinstance(video, Clip) else read_clip(video, sampling=_SAMPLING)


SCHEMA = 1
RUN_FILE, CLIPS_FILE, LABELS_FILE = "run.json", "clips.jsonl", "labels.json"
RESULTS_FILE, FRAMES = "results.json", "frames"

Open = Callable[[str], Any]
"""From a clip's `video` to what a scorer reads: a path, or a Clip."""


class Judge(Protocol):
    """Whatever gives clips their rewards; see `scorers`."""

    @property
    def batch_size(self) -> int:
        """Clips that are judged at a time; their records are on the disk before the next ones are begun."""

    @property
    def config(self) -> dict[str, Any]:
        """What the rewards depend on."""

    def judge(self, clips: Sequence[RatedClip], *, open_video: Open) -> list[dict[str, Any]]:
        """A record for each clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run, as it lies on the disk."""

    folder_name: str
    config: Mapping[str, Any]
    """The contents of run.json."""
    title: str
    """Of the benchmark."""
    licence: str
    """Of the benchmark's clips, whose frames a page may show; empty if nobody said."""
    published: Sequence[Mapping[str, Any]]
    """Figures that others report on this benchmark: model, label, figure, value, source."""
    clips: tuple[RatedClip, ...]
    pairs: tuple[Pair, ...]
    records: Mapping[Key, dict[str, Any]]
    """The record that counts of each clip, by video and prompt."""
    results: Mapping[str, Any]
    """See `results`."""
    frames: Mapping[int, bytes]
    """JPEG strips, by the clip's place in `clips`."""


def evaluate(
    judge: Judge,
    judgements: "Judgements",
    *,
    folder: Path,
    benchmark: str,
    title: str,
    licence: str = "",
    published: Sequence[Any] = (),
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Run:
    """Score the clips that have no score yet, and write the results.

    A folder that holds a run of the same config goes on where it stopped; clips that failed are tried again. One of
    another config, or one that another process is writing, raises ConfigError. `progress` hears how many clips of how
    many have been tried."""
    clips, pairs = judgements.clips, judgements.pairs
    told = {"clips": [to_plain(clip) for clip in clips], "pairs": [_pair_record(pair) for pair in pairs]}
    config = {
        "schema": SCHEMA,
        **judge.config,
        "benchmark": benchmark,
        "limit": limit,
        "labels": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16],
    }
    make_directory(folder)
    with lock_directory(folder):
        _start(folder, config, {"title": title, "licence": licence, "published": to_plain(list(published)), **told})
        _score(judge, clips, open_video=judgements.open, folder=folder, progress=progress)
        _finish(folder, clips, pairs, open_video=judgements.open)
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """The run in a folder. A file that is missing or broken raises DataError, an unfinished run too."""
    config, labels = _read_json(folder / RUN_FILE), _read_json(folder / LABELS_FILE)
    if not (folder / RESULTS_FILE).is_file():
        raise DataError(
            str(folder / RESULTS_FILE), 1, "is not there: the run is not finished; give its command again to go on"
        )
    strips = sorted((folder / FRAMES).glob("*.jpg"))
    return Run(
        folder_name=folder.resolve().name,
        config=config,
        title=_part(labels, "title", folder),
        licence=_part(labels, "licence", folder),
        published=_part(labels, "published", folder),
        clips=tuple(_rows(RatedClip, _part(labels, "clips", folder), folder)),
        pairs=tuple(_rows(Pair, _part(labels, "pairs", folder), folder)),
        records=_counting(folder),
        results=_read_json(folder / RESULTS_FILE),
        frames={int(strip.stem): strip.read_bytes() for strip in strips if strip.stem.isdecimal()},
    )


def _pair_record(pair: Pair) -> dict[str, Any]:
    """A pair without its annotations, which its clips have."""
    return {key: value for key, value in to_plain(pair).items() if key not in ("a", "b", "line")}


def _start(folder: Path, config: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    """Begin a run, or make sure that the one that is there is this one."""
    if (folder / RUN_FILE).is_file():
        _compare(folder, config)
        return
    if (folder / CLIPS_FILE).exists():
        raise ConfigError(f"{folder}: has {CLIPS_FILE} but no {RUN_FILE} to say of which run; choose another --out")
    atomic_write(folder / LABELS_FILE, _json(labels))
    atomic_write(folder / RUN_FILE, _json({**config, "started": datetime.now(UTC).isoformat(timespec="seconds")}))


def _compare(folder: Path, config: Mapping[str, Any]) -> None:
    there, here = _flat(_read_json(folder / RUN_FILE)), _flat(config)
    odd = [key for key in {**there, **here} if there.get(key) != here.get(key) and key != "started"]
    if odd:
        told = "; ".join(f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in odd)
        raise ConfigError(f"{folder}: holds another run ({told}); choose another --out, or the same options")


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """With `versions.torch` in the place of `versions`, so that a message names what differs and no more."""
    versions = {f"versions.{package}": version for package, version in (config.get("versions") or {}).items()}
    return {key: value for key, value in config.items() if key != "versions"} | versions


def _score(
    judge: Judge,
    clips: Sequence[RatedClip],
    *,
    open_video: Open,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    scored = {key for key, record in _counting(folder).items() if record["error"] is None}
    missing = [clip for clip in clips if (clip.video, clip.prompt) not in scored]
    if missing:
        (folder / RESULTS_FILE).unlink(missing_ok=True)  # they will not be of these records
    progress(len(clips) - len(missing), len(clips))
    for start in range(0, len(missing), judge.batch_size):
        batch = missing[start : start + judge.batch_size]
        append_records(folder / CLIPS_FILE, judge.judge(batch, open_video=open_video))
        progress(len(clips) - len(missing) + start + len(batch), len(clips))


def _finish(folder: Path, clips: Sequence[RatedClip], pairs: Sequence[Pair], *, open_video: Open) -> None:
    results = results_of(clips, pairs, _counting(folder))
    write_strips(folder / FRAMES, clips, pairs=[pairs[worst["pair"]] for worst in results["worst"]], open_=open_video)
    atomic_write(folder / RESULTS_FILE, _json(results))


def _counting(folder: Path) -> dict[Key, dict[str, Any]]:
    """The last record of each clip."""
    path, found = folder / CLIPS_FILE, {}
    for number, record in enumerate(read_records(path), start=1):
        if lacking := [key for key in ("video", "prompt", "reward", "error") if key not in record]:
            raise DataError(str(path), number, f"has no {', '.join(lacking)}; expected a record of a run")
        found[record["video"], record["prompt"]] = record
    return found


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(str(path), 1, "is not there; expected a folder that descore evaluate has written")
    try:
        found = json.loads(path.read_bytes())
    except json.JSONDecodeError as fault:
        raise DataError(str(path), fault.lineno, f"is not JSON: {fault.msg}; give the run's command again") from None
    except UnicodeDecodeError as fault:
        raise DataError(str(path), 1, f"is not UTF-8 at byte {fault.start}; give the run's command again") from None
    if not isinstance(found, dict):
        raise DataError(str(path), 1, f"found {type(found).__name__}, expected a JSON object")
    return found


def _part(labels: Mapping[str, Any], key: str, folder: Path) -> Any:  # noqa: ANN401
    if key not in labels:
        raise DataError(str(folder / LABELS_FILE), 1, f"has no {key!r}; expected the labels of a run")
    return labels[key]


def _rows(kind: type[Any], rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Any]:
    try:
        return [kind(**row) for row in rows]
    except TypeError as fault:
        raise DataError(str(folder / LABELS_FILE), 1, f"holds no {kind.__name__} ({fault})") from None
