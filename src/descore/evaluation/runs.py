"""Run directories: score every clip of a benchmark once, keep a record of each, and read it all back.

    run.json        what was run: the config, which a resumed run must equal, and when it started
    labels.json     what people judged: title, licence, published figures, rated clips, pairs
    clips.jsonl     a record per clip (RUN_KEYS), append-only; the last record of a clip counts
    results.json    the statistics, written when every clip has been tried
    frames/N.jpg    thumbnails of the clips in the worst mistakes; N is the clip's index in labels.json

In: a judge, a benchmark's judgements, a folder. Out: a `Run`."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from descore.errors import ConfigError, DataError, DescoreError, DescoreWarning
from descore.evaluation.judges import Judge, OpenVideo
from descore.evaluation.records import (
    ClipFields,
    ConfigFields,
    LabelFields,
    Record,
    ResultFields,
    check_fields,
    file_stamp,
    is_unchanged,
    to_plain,
    without_bad_reward,
)
from descore.evaluation.results import ClipKey, key_of, results_of
from descore.io import (
    append_records,
    atomic_directory,
    atomic_write,
    lock_directory,
    make_directory,
    read_json_object,
    read_records,
)
from descore.types import DIMENSIONS, Clip, Pair, RatedClip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.evaluation.benchmarks import Judgements

RUN_SCHEMA = 1
RUN_FILE, CLIPS_FILE, LABELS_FILE = "run.json", "clips.jsonl", "labels.json"
RESULTS_FILE, FRAMES_FOLDER = "results.json", "frames"

_FRAMES, _HEIGHT, _GAP, _QUALITY = 4, 96, 4, 80
"""Frames in a thumbnail; its height and the space between frames, in pixels; JPEG quality of 100."""

_NAMED = 4
"""Files that a message names."""

_THUMBNAIL_SAMPLING = VideoSampling(
    fps=0.01, min_frames=_FRAMES, max_frames=_FRAMES, min_pixels=1, max_pixels=512 * 512, size_multiple=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run, as it lies on the disk."""

    folder_name: str
    config: Mapping[str, Any]
    """The contents of run.json."""
    title: str
    """Of the benchmark."""
    licence: str
    """Of the benchmark's clips, whose frames a page may show; empty if unknown."""
    published: Sequence[Mapping[str, Any]]
    """Figures that others report on this benchmark: model, label, figure, value, source."""
    clips: tuple[RatedClip, ...]
    pairs: tuple[Pair, ...]
    records: Mapping[ClipKey, Record]
    """The last record of each clip."""
    results: Mapping[str, Any]
    """See `results_of`."""
    frames: Mapping[int, bytes]
    """JPEG thumbnails, by the clip's index in `clips`."""


def run_evaluation(
    judge: Judge,
    judgements: "Judgements",
    *,
    folder: Path,
    benchmark: str,
    title: str,
    licence: str = "",
    published: Sequence[Any] = (),
    limit: int | None = None,
    tie_margin: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Run:
    """Score the clips that have no score yet, and write the results.

    A folder that holds a run of the same config is resumed; clips that failed are tried again, and clips whose file has
    changed are scored anew, with a warning. A folder of another config, one that another process is writing, or one
    with scores of files that are gone, raises ConfigError. `on_progress` is called with the number of clips
    that have been tried and the number of all. `tie_margin`: see `results_of`; of the statistics alone, so a run can be
    counted again with another one."""
    clips, pairs = judgements.clips, judgements.pairs
    labels = {"clips": [to_plain(clip) for clip in clips], "pairs": [_pair_record(pair) for pair in pairs]}
    config = {
        "schema": RUN_SCHEMA,
        **judge.config,
        "benchmark": benchmark,
        "limit": limit,
        "labels": hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16],
    }
    make_directory(folder)
    with lock_directory(folder):
        _start(folder, config, {"title": title, "licence": licence, "published": to_plain(list(published)), **labels})
        _score(judge, judgements, folder=folder, on_progress=on_progress)
        _finish(folder, judgements, tie_margin=tie_margin)
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """The run in a folder. A file that is missing or broken, or a run that is not finished, raises DataError."""
    config, labels = _read_json(folder / RUN_FILE, ConfigFields), _read_labels(folder)
    if not (folder / RESULTS_FILE).is_file():
        raise DataError(
            str(folder / RESULTS_FILE), 1, "is not there: the run is not finished; give its command again to go on"
        )
    thumbnails = [path for path in sorted((folder / FRAMES_FOLDER).glob("*.jpg")) if path.is_file()]
    frames = {int(path.stem): path.read_bytes() for path in thumbnails if path.stem.isdecimal()}
    records, results = _last_records(folder), _read_json(folder / RESULTS_FILE, ResultFields)
    _check_results(results, labels, records=records, file=folder / RESULTS_FILE)
    return Run(
        folder_name=folder.resolve().name,
        config=config,
        title=labels["title"],
        licence=labels["licence"],
        published=labels["published"],
        clips=labels["clips"],
        pairs=labels["pairs"],
        records=records,
        results=results,
        frames=frames,
    )


def _pair_record(pair: Pair) -> dict[str, Any]:
    """A pair without its annotations, which its clips have."""
    return {key: value for key, value in to_plain(pair).items() if key not in ("a", "b", "line")}


def write_thumbnails(folder: Path, clips: Sequence[RatedClip], *, pairs: Sequence[Pair], open_video: OpenVideo) -> None:
    """Write N.jpg for both clips of each pair, N being the clip's index in `clips`. The folder's earlier thumbnails are
    replaced; a video that cannot be read has none."""
    index_of = {(clip.video, clip.prompt): index for index, clip in enumerate(clips)}
    videos = {index_of[video, pair.prompt]: video for pair in pairs for video in (pair.video_a, pair.video_b)}
    with atomic_directory(folder) as aside:
        for index, name in sorted(videos.items()):
            try:
                video = open_video(name)
                clip = video if isinstance(video, Clip) else read_clip(video, sampling=_THUMBNAIL_SAMPLING)
            except DescoreError:
                continue  # the clip's record has the error
            thumbnail(clip).save(aside / f"{index}.jpg", quality=_QUALITY)


def thumbnail(clip: Clip) -> Image.Image:
    """Up to four frames side by side, evenly spaced from the first to the last, 96 pixels high."""
    indices = np.unique(np.linspace(0, len(clip.frames) - 1, _FRAMES).round().astype(int))
    width = max(1, round(_HEIGHT * clip.size[0] / clip.size[1]))
    image = Image.new("RGB", (len(indices) * (width + _GAP) - _GAP, _HEIGHT), "white")
    for column, index in enumerate(indices):
        image.paste(Image.fromarray(clip.frames[index]).resize((width, _HEIGHT)), (column * (width + _GAP), 0))
    return image


def _start(folder: Path, config: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    """Begin a run, or check that the run in the folder has the same config."""
    if (folder / RUN_FILE).is_file():
        _check_same_config(folder, config)
        _mend_labels(folder, labels)
        return
    if (folder / CLIPS_FILE).exists():
        raise ConfigError(f"{folder}: has {CLIPS_FILE} but no {RUN_FILE} to say of which run; choose another --out")
    atomic_write(folder / LABELS_FILE, _json(labels))
    atomic_write(folder / RUN_FILE, _json({**config, "started": datetime.now(UTC).isoformat(timespec="seconds")}))


def _mend_labels(folder: Path, labels: Mapping[str, Any]) -> None:
    """Write labels.json anew if it cannot be read: it is of the same labels, since the config has their digest."""
    try:
        _read_labels(folder)
    except DataError:
        atomic_write(folder / LABELS_FILE, _json(labels))


def _check_same_config(folder: Path, config: Mapping[str, Any]) -> None:
    there, here = _flat(_read_json(folder / RUN_FILE, ConfigFields)), _flat(config)
    unequal = [key for key in {**there, **here} if there.get(key) != here.get(key) and key != "started"]
    if unequal:
        values = "; ".join(f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in unequal)
        raise ConfigError(f"{folder}: holds another run ({values}); choose another --out, or the same options")


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """With `versions.torch` in the place of `versions`, so that a message names only the package that differs."""
    versions = {f"versions.{package}": version for package, version in (config.get("versions") or {}).items()}
    return {key: value for key, value in config.items() if key != "versions"} | versions


def _score(judge: Judge, judgements: "Judgements", *, folder: Path, on_progress: Callable[[int, int], None]) -> None:
    clips = judgements.clips
    scored = {key: record for key, record in _last_records(folder).items() if record["error"] is None}
    changed = _changed_clips(scored, judgements, folder=folder)
    missing = [clip for clip in clips if key_of(clip) not in scored or key_of(clip) in changed]
    if missing:
        (folder / RESULTS_FILE).unlink(missing_ok=True)  # it is of fewer scores
    on_progress(len(clips) - len(missing), len(clips))
    for start in range(0, len(missing), judge.batch_size):
        batch, opener = missing[start : start + judge.batch_size], _StampingOpener(judgements)
        records = judge.judge(batch, open_video=opener.open)
        append_records(folder / CLIPS_FILE, [r | {"file": opener.stamps.get(r["video"])} for r in records])
        on_progress(len(clips) - len(missing) + start + len(batch), len(clips))


class _StampingOpener:
    """Opens videos, and keeps the stamp that each one's file had before it was judged."""

    def __init__(self, judgements: "Judgements") -> None:
        self.judgements = judgements
        self.stamps: dict[str, Record | None] = {}

    def open(self, video: str) -> Any:  # noqa: ANN401  # whatever a benchmark opens
        file = self.judgements.file(video)
        if video not in self.stamps and file is not None:
            self.stamps[video] = file_stamp(file)
        return self.judgements.open(video)


def _changed_clips(scored: Mapping[ClipKey, Record], judgements: "Judgements", *, folder: Path) -> set[ClipKey]:
    """The clips whose file is another one than that which was scored. ConfigError if a file is gone."""
    known = [clip for clip in judgements.clips if key_of(clip) in scored]
    files = {clip.video: file for clip in known if (file := judgements.file(clip.video)) is not None}
    records = [scored[key_of(clip)] for clip in known if clip.video in files]
    stamped = [record for record in records if record.get("file")]  # a judge that opens no file leaves no stamp
    if gone := [str(files[record["video"]]) for record in stamped if not files[record["video"]].exists()]:
        clips = f"holds scores of files that are gone: {_some(gone)}"
        raise ConfigError(f"{folder}: {clips}; bring them back, or choose another --out")
    changed = [record for record in stamped if not is_unchanged(files[record["video"]], record["file"])]
    _warn_of_files(changed, [r for r in records if "file" not in r and r.get("seconds") is not None], folder=folder)
    return {(record["video"], record["prompt"]) for record in changed}


def _warn_of_files(changed: Sequence[Record], unchecked: Sequence[Record], *, folder: Path) -> None:
    """`unchecked`: records of an older version, which kept no stamps."""
    if changed:
        clips = f"files of its clips have changed since they were scored: {_some(r['video'] for r in changed)}"
        warnings.warn(f"{folder}: {clips}; these are scored anew", DescoreWarning, stacklevel=2)
    if unchecked:
        clips = f"begun with an older version, which kept no digests: {_some(r['video'] for r in unchecked)}"
        warnings.warn(f"{folder}: {clips}: whether they have changed is not checked", DescoreWarning, stacklevel=2)


def _some(videos: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(dict.fromkeys(videos))
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _finish(folder: Path, judgements: "Judgements", *, tie_margin: float | None) -> None:
    clips, pairs = judgements.clips, judgements.pairs
    results = results_of(clips, pairs, _last_records(folder), tie_margin=tie_margin)
    worst = [pairs[mistake["pair"]] for mistake in results["worst"]]
    write_thumbnails(folder / FRAMES_FOLDER, clips, pairs=worst, open_video=judgements.open)
    atomic_write(folder / RESULTS_FILE, _json(results))


def _last_records(folder: Path) -> dict[ClipKey, Record]:
    path, records = folder / CLIPS_FILE, {}
    for number, record in enumerate(read_records(path), start=1):
        check_fields(record, ClipFields, file=path, line=number, advice="delete the line to score its clip again")
        records[record["video"], record["prompt"]] = without_bad_reward(record)
    return records


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _read_json(path: Path, kind: type[Any]) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(str(path), 1, "is not there; expected a folder that descore evaluate has written")
    advice = "choose another --out" if path.name == RUN_FILE else "give the run's command again"
    try:
        content = read_json_object(path)
    except DataError as error:
        raise DataError(error.file, error.line, f"{error.reason}; {advice}") from None
    check_fields(content, kind, file=path, advice=advice)
    return content


def _read_labels(folder: Path) -> dict[str, Any]:
    """The contents of labels.json, with clips and pairs in place of their fields."""
    labels = _read_json(folder / LABELS_FILE, LabelFields)
    return labels | {name: _rows(kind, labels[name], folder) for name, kind in (("clips", RatedClip), ("pairs", Pair))}


def _rows(kind: type[Any], rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Any, ...]:
    file = folder / LABELS_FILE
    check_fields(rows, list[kind], file=file, advice="give the run's command again")  # type: ignore[valid-type]
    if any(row.get("marks") is not None and row["marks"].keys() != set(DIMENSIONS) for row in rows):
        raise DataError(str(file), 1, f"has other marks than {', '.join(DIMENSIONS)}; give the run's command again")
    try:
        return tuple(kind(**row) for row in rows)
    except TypeError as error:
        raise DataError(str(file), 1, f"holds no {kind.__name__} ({error})") from None


def _check_results(
    results: Mapping[str, Any], labels: Mapping[str, Any], *, records: Mapping[ClipKey, Record], file: Path
) -> None:
    """Refuse results of other records or labels than those in the folder."""
    scored = {key for clip in labels["clips"] if records.get(key := key_of(clip), {}).get("reward") is not None}
    pairs, worst = labels["pairs"], results["worst"]
    if len(scored) < results["scored"] or any(not 0 <= each["pair"] < len(pairs) for each in worst):
        reason = f"counts {results['scored']:,} clips with a score, {CLIPS_FILE} has {len(scored):,}"
        raise DataError(str(file), 1, f"{reason}; give the run's command again")
    if any(each["label"] not in pairs[each["pair"]].preference for each in worst):
        raise DataError(str(file), 1, "names a label that its pair does not have; give the run's command again")
