"""What the lesson in reading makes of prompts that no lesson has.

    python -m experiments.grow_tiny.read_held_out --run runs/first --footage runs/footage --generated runs/generated

Prints, for the generated clips of each split, the correlation of the cosines of any two prompts with MiniLM's, and how
often a clip is nearer to its own prompt than to another: as is said of two of its frames after the lesson, and as the
eyes read labels in all of them before any."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch.nn import functional

from descore.model.efficient_vl import FEATURES
from descore.model.modeling import DescoreModel
from descore.types import Clip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling
from experiments.generated.baselines import MiniLm
from experiments.generated.benchmark import other_prompts, whole_clip
from experiments.generated.clips import Generated
from experiments.generated.labels import label_names
from experiments.generated.store import Split
from experiments.generated.words import prompts_of
from experiments.grow_tiny.lessons import NO_CLIP
from experiments.grow_tiny.meanings import Embed
from experiments.grow_tiny.reading import SHOWN, ReadHeads, prompt_states

MOST = 100
"""Prompts of a split, of which all pairs are taken."""


@torch.no_grad()
def correlation(model: DescoreModel, heads: ReadHeads, texts: Sequence[str], embed: Embed) -> float:
    """Of the cosines of any two of these texts, as the head has them, with those of their vectors."""
    said_BD = functional.normalize(heads.vectors["text"](states(model, [NO_CLIP] * len(texts), texts)), dim=1)
    true_BD, upper = embed(texts), torch.triu_indices(len(texts), len(texts), offset=1).unbind()
    return float(torch.stack([(said_BD @ said_BD.T)[upper], (true_BD @ true_BD.T)[upper]]).corrcoef()[0, 1])


@torch.no_grad()
def own_prompt(model: DescoreModel, heads: ReadHeads, store: Generated, split: Split) -> Iterator[bool]:
    """Of each clip with a prompt and each of some others, whether its middle is nearer to its own."""
    prompts = prompts_of(store)[split]
    for number, clip in enumerate(clip for clip in store.clips[split] if clip.prompt):
        texts = [clip.prompt, *other_prompts(clip, prompts, number)]
        picture = middle(whole_clip(store, clip), model.settings.sampling)
        own, *others = heads.nearness(states(model, [picture] * len(texts), texts))[:, 0].tolist()
        yield from (own > other for other in others)


@torch.no_grad()
def own_prompt_by_labels(model: DescoreModel, embed: Embed, store: Generated, split: Split) -> Iterator[bool]:
    """The same of whole clips, by what the labels mean that the eyes read."""
    visual, label_LD = model.backbone.model.visual, embed(label_names())
    axes_DM = torch.linalg.lstsq(label_LD - label_LD.mean(dim=0), visual.meanings.weight.T).solution
    prompts = prompts_of(store)[split]
    for number, clip in enumerate(clip for clip in store.clips[split] if clip.prompt):
        texts, whole = [clip.prompt, *other_prompts(clip, prompts, number)], whole_clip(store, clip)
        sampled = read_clip(whole.frames, fps=whole.source_fps, sampling=model.settings.sampling)
        inputs = model.chat.lay_out_prompts([sampled], [clip.prompt])
        places_VF = visual.gather(inputs["pixel_values_videos"], inputs["video_grid_thw"])[:, :FEATURES]
        shown_M = visual.meaning(places_VF).mean(dim=0)
        own, *others = (functional.normalize(embed(texts) @ axes_DM, dim=1) @ shown_M).tolist()
        yield from (own > other for other in others)


def middle(clip: Clip, sampling: VideoSampling) -> Clip:
    """Two frames, as a model sees them."""
    sampled = read_clip(clip.frames, fps=clip.source_fps, sampling=sampling)
    first = (len(sampled.frames) - SHOWN) // 2
    part = slice(first, first + SHOWN)
    return replace(sampled, frames=sampled.frames[part], times=sampled.times[part])


def states(model: DescoreModel, pictures: Sequence[Clip], texts: Sequence[str]) -> torch.Tensor:
    """(B, F): behind each text."""
    state_BF, _ = prompt_states(model, {"inputs": model.chat.lay_out_prompts(list(pictures), list(texts))})
    return state_BF


def main() -> None:
    """Print three lines for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/first"))
    parser.add_argument("--footage", type=Path, default=Path("runs/footage"))
    parser.add_argument("--generated", type=Path, default=Path("runs/generated"))
    options = parser.parse_args()
    model = DescoreModel.from_pretrained(options.run / "start", device="cpu").eval()
    learned = torch.load(options.run / "read" / "read.pt", weights_only=True)
    heads = ReadHeads(model.query.shape[0])
    model.backbone.load_state_dict(learned["backbone"])
    heads.load_state_dict(learned["answers"])
    embed, store = MiniLm(options.footage / "archives").embed, Generated.open(options.generated)
    for split, prompts in prompts_of(store).items():
        some, hits = prompts[:MOST], list(own_prompt(model, heads, store, split))
        print(f"{split}: correlation {correlation(model, heads, some, embed):.3f} (n = {len(some)} prompts)")
        print(f"{split}: own prompt {fmean(hits):.3f} (n = {len(hits)})")
        hits = list(own_prompt_by_labels(model, embed, store, split))
        print(f"{split}: own prompt, by labels {fmean(hits):.3f} (n = {len(hits)})", flush=True)


if __name__ == "__main__":
    main()
