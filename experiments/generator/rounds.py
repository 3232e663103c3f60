"""Rounds: clips that a generator has made, scored by a reward, to train it on.

A round's folder has what a user of descore has: clips as mp4 at the rewards' size, a table, and scores-NAME.csv for
each reward. The frames that are trained on lie beside each mp4 as they were made. What is there already is not made
again, so several runs can begin with one round: what they become then differs by what they follow alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descore.data.tables import read_rows
from descore.data.write import table_writer
from descore.errors import ConfigError
from descore.io import atomic_path, folder_digest, make_directory
from descore.rewards import write_scores
from descore.scorer import Scorer
from descore.video.encoder import write_mp4
from experiments.generator.flow import generate
from experiments.generator.model import Generator
from experiments.generator.rewards import JUDGE, enlarged_frames, model_reward
from experiments.generator.tuning import Run
from experiments.generator.world import FPS, Ask, Frames
from experiments.harness import keep_plan

TABLE, REFERENCE, PLAN = "clips.csv", "reference", "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSettings:
    """Of methods that train in rounds."""

    round_updates: int = 150
    """Updates of a round; the run's updates divided by them are its rounds."""
    prompts: int = 256
    """Of a round; each round has others."""
    clips: int = 8
    """Of each prompt."""
    least_sigma: float = 0.75
    """Noise level from which on clips are trained on: there it is decided what they show, which is what a reward tells
    apart, and how they show it is left as it was."""
    round_guidance: float = 1.0
    """Of a round's clips. At 1, without guidance, they are what the weights that are trained on them make by
    themselves; looks are made with the plan's guidance."""
    first_round: str = ""
    """Folder of the first round, for runs that share it: what it lacks is made. Empty: the run makes its own."""

    def __post_init__(self) -> None:
        """ConfigError for a noise level beyond which there is none."""
        if not 0 <= self.least_sigma < 1:
            raise ConfigError(f"least_sigma is {self.least_sigma:g}, expected a noise level from 0 to below 1")


def scored_round(run: Run, settings: RoundSettings) -> Path:
    """The table of the round that the update is of, scored by the reward that the run follows. Its clips are made by
    the generator as it is now, which is kept as the round's reference.

    ConfigError if a shared round is of another generator or of other prompts."""
    number = run.update // settings.round_updates
    shared = settings.first_round if number == 0 else ""
    folder = Path(shared) if shared else round_folder(run, settings)
    reference = round_folder(run, settings) / REFERENCE
    run.model.save(reference)
    make_directory(folder)
    made_by = {"generator": folder_digest(reference), "steps": run.plan.steps, "guidance": settings.round_guidance}
    otherwise = "holds clips of another generator or other sampling; choose another folder"
    keep_plan(folder / PLAN, made_by, otherwise=otherwise)
    with run.timed("generation"):
        first = number * settings.prompts
        seed = 0 if shared else (run.plan.seed + 1) * 100_000  # what runs share depends on none's seed
        asked = run.asked(first, settings.prompts)
        for place, one in enumerate(asked, start=first):
            seeds = [(seed + place) * 10_000 + index for index in range(settings.clips)]
            videos = [_video(folder, place, index) for index in range(settings.clips)]
            _make_clips(run, one.prompt, videos, seeds, guidance=settings.round_guidance)
        _write_table(folder, asked, settings.clips, first=first)
    with run.timed("reward"):
        scores = folder / f"scores-{run.plan.reward.partition('=')[0]}.csv"
        if run.plan.reward == JUDGE:
            _write_judged(run, folder / TABLE, scores, [one for one in asked for _ in range(settings.clips)])
            return scores
        row = model_reward(run.plan.reward)
        write_scores(folder / TABLE, scores, scorer=Scorer.from_pretrained(row.model), **row.sampling_params)
    return scores


def round_folder(run: Run, settings: RoundSettings) -> Path:
    """What a run keeps of the round that its update is of."""
    return run.out / f"round-{run.update // settings.round_updates}"


def read_reference(run: Run, settings: RoundSettings) -> Generator:
    """The generator that the round began with."""
    return Generator.load(round_folder(run, settings) / REFERENCE)


def read_frames(video: Path) -> Frames:
    """The frames of a round's clip, as they were made."""
    frames: Frames = np.load(_frames_file(video))
    return frames


def _make_clips(run: Run, prompt: str, videos: Sequence[Path], seeds: Sequence[int], *, guidance: float) -> None:
    """Make those of a prompt's clips that are missing."""
    missing = [index for index, video in enumerate(videos) if not _frames_file(video).is_file()]
    asked, own = [prompt] * len(missing), [seeds[index] for index in missing]
    made = generate(run.model.eval(), asked, own, steps=run.plan.steps, guidance=guidance)
    for index, frames in zip(missing, made, strict=True):
        make_directory(videos[index].parent)
        write_mp4(videos[index], enlarged_frames(frames), fps=int(FPS), options={"crf": "8"})
        with atomic_path(_frames_file(videos[index])) as part, part.open("wb") as file:
            np.save(file, frames)  # behind the video, so that both are there where this is


def _write_judged(run: Run, table: Path, scores: Path, asked: Sequence[Ask]) -> None:
    """The table with the judge's word on each clip."""
    with table_writer(scores, ("video", "prompt", "reward"), overwrite=True) as write:
        for (_, row), one in zip(read_rows(table), asked, strict=True):
            write({**row, "reward": run.reward([read_frames(table.parent / row["video"])], [one])[0]})


def _write_table(folder: Path, asked: Sequence[Ask], clips: int, *, first: int) -> None:
    """Write the table, if it is not there. ConfigError if it is one of other clips."""
    rows = [
        {"video": _video(folder, place, index).relative_to(folder).as_posix(), "prompt": one.prompt}
        for place, one in enumerate(asked, start=first)
        for index in range(clips)
    ]
    if (folder / TABLE).is_file():
        if [row for _, row in read_rows(folder / TABLE)] != rows:
            raise ConfigError(f"{folder / TABLE}: is of other prompts or of more clips or fewer; choose another folder")
        return
    with table_writer(folder / TABLE, ("video", "prompt")) as write:
        for row in rows:
            write(row)


def _video(folder: Path, prompt: int, index: int) -> Path:
    return folder / "clips" / f"{prompt:04d}-{index:02d}.mp4"


def _frames_file(video: Path) -> Path:
    return video.with_suffix(".npy")
