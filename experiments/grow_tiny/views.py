"""The data of the first two lessons: drawn clips with the truth of each token, real ones with their harms.

The first lesson shows single pairs of frames, the second whole clips with prompts, descriptions and a teacher's
features.

Each item is a function of its number alone, made on demand by a worker that reads ahead.

Shapes in names: T frames, V visual tokens, B clips, P pairs of frames, S teacher's features of a pair of frames, L
labels, N flaws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from descore.model.efficient_vl import LABELS
from descore.model.modeling import DescoreModel
from descore.synthetic.splits import Split, draw_plan, plan_example
from descore.training.collate import ChainCollator, TrainingExample
from descore.types import Clip
from experiments.footage.clips import Footage
from experiments.footage.cutouts import CutOuts, moving_cut_out
from experiments.footage.examples import footage_example
from experiments.generated.examples import Examples
from experiments.grow_tiny.meanings import MEANING, Meanings
from experiments.grow_tiny.teacher import STATISTICS, Teacher
from experiments.grow_tiny.texts import Texts
from experiments.grow_tiny.token_truth import (
    OF_ALL,
    OF_THINGS,
    Harmed,
    Truth,
    harm_at_random,
    of_cut_out,
    of_drawn,
    of_real,
    strengths,
)

Numbers = NDArray[np.int64]

REAL_EVERY = 2
"""One clip in so many is real or generated."""
P_CUT_OUT = 0.4
"""Share of these over which a cut-out thing stands or moves."""
FRAMES, PAIRS_SHOWN = 8, 2
"""Most frames of a real clip that is harmed, and pairs of them that are shown: another clip teaches more than more of
the same."""
P_ANOTHER = 2 / 3
"""Share of real clips that are described under another text than their prompt."""
LARGER = 1.25
"""Edges of every second real clip, as a multiple of a drawn clip's."""
SOUND_FIRST = 0.3
"""Share of the lesson over which flaws of drawn clips are introduced: sound clips are the easier start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What the teachers see in a clip."""

    meaning_D: Tensor
    """Of the clip's labels."""
    match_1: Tensor
    """How near the prompt is to that."""
    label_PL: Tensor
    """Mean probabilities."""
    change_P2S: Tensor
    """Of its features from a pair's first frame to the second, and how that differs from their change from the frame
    before to the first; NaN where there is none."""
    jerk_1: Tensor
    """`FrameFeatures.jerk`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A clip and what is to be predicted of it."""

    clip: Clip
    truth: Truth
    taught: Taught | None = None
    prompt: str = ""
    chain: str | None = None
    """The description, where one is to be learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealClips:
    """Where real clips come from, and what teaches them."""

    examples: Examples
    cut_outs: CutOuts
    teacher: Teacher
    meanings: Meanings
    common_words: Callable[[int], list[str]]
    """The commonest words of English."""

    @property
    def footage(self) -> Footage:
        """Films and photographs among the sources."""
        assert self.examples.sources.footage is not None, "the lessons have both"
        return self.examples.sources.footage


@dataclass(frozen=True, slots=True, kw_only=True)
class Views(Dataset):  # type: ignore[type-arg]
    """Views `start` to `size` - 1; drawn clips of increasing variety."""

    real_clips: RealClips
    size: int
    side: int
    """Pixels along each edge of a drawn frame."""
    start: int = 0

    def __len__(self) -> int:
        return self.size - self.start

    def __getitem__(self, index: int) -> View:
        number = self.start + index
        return self.real(number) if number % REAL_EVERY == 0 else self.drawn(number)

    def real(self, number: int) -> View:
        """A real or generated clip, or a cut-out thing over one, sound or harmed, and the teacher's features of it."""
        rng = np.random.default_rng([number, 1])
        pixels = round(self.side * LARGER) ** 2 if rng.random() < 0.5 else self.side**2
        ground = self.real_clips.examples.sources.window("train", rng=rng, pixels=pixels, frames=FRAMES)
        laid = moving_cut_out(self.real_clips.cut_outs, ground.clip, rng=rng) if rng.random() < P_CUT_OUT else None
        clip = ground.clip if laid is None else laid.clip
        harmed = harm_at_random(clip.frames, rng)
        frames_T = some_pairs(len(clip.times), rng)
        times = tuple(clip.times[number] for number in frames_T)
        clip = replace(clip, frames=ground.finished(harmed.frames_THWC[frames_T]).frames, times=times)
        truth = of_real(harmed, frames_T) if laid is None else of_cut_out(laid, harmed, frames_T)
        return View(clip=clip, truth=truth)

    def drawn(self, number: int) -> View:
        """A drawn clip and the truth of it."""
        progress = number / self.size
        planned = plan_example(
            Split.TRAIN, number, variety=min(1.0, 2 * progress), p_differs=1.0 if number // 2 % 2 else None
        )
        if progress < np.random.default_rng(number).random() * SOUND_FIRST:
            planned = replace(planned, flaws=())
        return View(clip=draw_plan(planned, size=(self.side, self.side)).clip, truth=of_drawn(planned, self.side))


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedViews(Views):
    """Whole clips with prompts and their descriptions, the chain's first paragraph. Every second prompt of drawn clips
    asks for nothing; the others are wrong in three attributes of four, so that copying them does not help. Two of three
    prompts of real clips are other texts, of which there are many more than of clips."""

    texts: Texts

    def real(self, number: int) -> View:
        """A generated clip, or footage, or, each third time, footage as the benchmark of footage has it."""
        if number // REAL_EVERY % 3:
            made = self.real_clips.examples.example(number)
            harms = {harm.name: harm.strength for harm in made.harms}
            flaws_N, clip, prompt, chain = strengths((), harms), made.clip, made.prompt, made.chain
        else:
            shown = footage_example(self.real_clips.footage, "train", number, pixels=self.side**2)
            flaws_N, clip, prompt, chain = strengths(shown.flaws), shown.clip, shown.prompt, shown.chain
        clip, rng = even(clip), np.random.default_rng([number, 2])
        if rng.random() < P_ANOTHER:
            prompt, _ = self.texts.random(rng, near_D=self.real_clips.meanings.of_prompt(prompt))
        known = not np.nan_to_num(flaws_N).any()
        harmed = Harmed(frames_THWC=clip.frames, flaws_N=flaws_N, known=known)
        truth = of_real(harmed, np.arange(len(clip.times)))
        taught = taught_by(self.real_clips, clip, prompt)
        return View(clip=clip, truth=truth, taught=taught, prompt=prompt, chain=description_of(chain))

    def drawn(self, number: int) -> View:
        """A drawn clip. Scenes are simple at first."""
        variety, informed = min(1.0, 0.3 + 1.4 * number / self.size), number % (2 * REAL_EVERY) < REAL_EVERY
        planned = plan_example(Split.TRAIN, number, variety=variety, p_differs=0.75, informed=informed)
        drawn = draw_plan(planned, size=(self.side, self.side))
        chain = description_of(drawn.chain)
        return View(clip=drawn.clip, truth=of_drawn(planned, self.side), prompt=drawn.prompt, chain=chain)


def description_of(chain: str) -> str:
    """The first paragraph."""
    return chain.partition("\n")[0]


def even(clip: Clip) -> Clip:
    """The clip without its last frame if their number is odd."""
    count = len(clip.times) // 2 * 2
    return clip if count == len(clip.times) else replace(clip, frames=clip.frames[:count], times=clip.times[:count])


def some_pairs(frames: int, rng: np.random.Generator) -> Numbers:
    """Numbers of the frames of PAIRS_SHOWN pairs, one behind the other."""
    shown = min(frames // 2, PAIRS_SHOWN)
    first = 2 * int(rng.integers(frames // 2 - shown + 1))
    return np.arange(first, first + 2 * shown)


def taught_by(real_clips: RealClips, clip: Clip, prompt: str) -> Taught:
    """What is taught of a clip with an even number of frames, under this prompt."""
    seen, meanings = real_clips.teacher.features(clip.frames), real_clips.meanings
    label_PL = (seen.probability_NL[0::2] + seen.probability_NL[1::2]) / 2
    meaning_D = meanings.of_places(label_PL)
    return Taught(
        meaning_D=meaning_D,
        match_1=torch.dot(meaning_D, meanings.of_prompt(prompt))[None],
        label_PL=label_PL,
        change_P2S=changes(seen.statistics_NS),
        jerk_1=torch.tensor([seen.jerk]),
    )


def changes(features_TS: Tensor) -> Tensor:
    """(P, 2 S): of each pair of frames the first difference, and the second; NaN where no frame is before."""
    first_TS = torch.cat([features_TS.new_full((1, features_TS.shape[1]), torch.nan), features_TS.diff(dim=0)])
    return torch.cat([first_TS[1::2], first_TS[1::2] - first_TS[0::2]], dim=1)


@dataclass(frozen=True, slots=True)
class ViewCollator:
    """Batches views: the vision tower's input, and what is to be predicted, with the tokens of all clips in one row.

    `clip_V` and `pair_V` number each token's clip and pair of frames; `taught_B` and `taught_P` say which are taught,
    and `meaning_BD`, `match_B1`, `jerk_B1`, `change_P2S` and `label_PL` have rows for these alone. Where views have
    descriptions, `inputs` are those of the whole model."""

    model: DescoreModel

    def __call__(self, views: Sequence[View]) -> dict[str, Any]:
        """A batch."""
        laid = self._laid_out(views)
        grid_B3, truths = laid["video_grid_thw"], [view.truth for view in views]
        tokens_B = torch.tensor([len(truth.cover_VC) for truth in truths])
        pairs_B = grid_B3[:, 0]
        is_taught_B = torch.tensor([view.taught is not None for view in views])
        return {
            "inputs": laid,
            "patches_RP": laid["pixel_values_videos"],
            "grid_B3": grid_B3,
            "clip_V": torch.repeat_interleave(tokens_B),
            "pair_V": torch.repeat_interleave(torch.repeat_interleave(tokens_B // pairs_B, pairs_B)),
            "cover_VC": torch.from_numpy(np.concatenate([truth.cover_VC for truth in truths])),
            "motion_V5": torch.from_numpy(np.concatenate([truth.motion_V5 for truth in truths])),
            "harm_V2": torch.from_numpy(np.concatenate([truth.harm_V2 for truth in truths])),
            "flaws_BN": torch.from_numpy(np.stack([truth.flaws_N for truth in truths])),
            "taught_B": is_taught_B,
            "taught_P": torch.repeat_interleave(is_taught_B, pairs_B),
            **_teachings([view.taught for view in views if view.taught is not None]),
            **{n: torch.from_numpy(np.concatenate([t.labels[n] for t in truths])) for n in (*OF_THINGS, *OF_ALL)},
        }

    def _laid_out(self, views: Sequence[View]) -> dict[str, Any]:
        if any(view.chain is None for view in views):
            return dict(self.model.chat.lay_out_prompts([view.clip for view in views], [view.prompt for view in views]))
        examples = [TrainingExample(clip=view.clip, prompt=view.prompt, chain=view.chain) for view in views]
        return ChainCollator(self.model.chat)(examples)


def _teachings(taught: Sequence[Taught]) -> dict[str, Tensor]:
    widths = {"label_PL": LABELS, "change_P2S": 2 * STATISTICS}
    by_pair = {n: torch.cat([torch.zeros(0, width), *(getattr(t, n) for t in taught)]) for n, width in widths.items()}
    by_clip = {"meaning_BD": (MEANING, "meaning_D"), "match_B1": (1, "match_1"), "jerk_B1": (1, "jerk_1")}
    return by_pair | {
        name: torch.stack([getattr(each, own) for each in taught]) if taught else torch.zeros(0, width)
        for name, (width, own) in by_clip.items()
    }
