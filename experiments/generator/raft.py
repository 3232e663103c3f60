"""Fine-tuning on the best of N, in rounds: make clips, keep the best of each prompt by the reward, train on them as the
generator was first trained, and again (RAFT, Dong et al. 2023, arXiv 2304.06767).

Shapes: B clips, C = 3 colour channels, T frames, H rows, W columns, L words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from descore.data.tables import read_rows
from descore.rewards import rank, read_scored, write_best
from experiments.generator.flow import flow_errors, random_sigmas, to_values, without_some_prompts
from experiments.generator.rounds import RoundSettings, read_frames, round_folder, scored_round
from experiments.generator.tuning import Run, apply_gradients
from experiments.generator.words import read_prompts
from experiments.generator.world import Frames

BEST = "best.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings(RoundSettings):
    """Of the method."""

    best: int = 1
    """Clips that are kept of each prompt."""
    batch: int = 16
    """Clips of an update."""


@dataclass(frozen=True, slots=True)
class Raft:
    """The method."""

    settings: RaftSettings

    def __call__(self, run: Run) -> Mapping[str, float]:
        """Keep a round's best clips if it has none yet, and take one step on some of them."""
        own, best = self.settings, round_folder(run, self.settings) / BEST
        if not best.is_file():
            scores = scored_round(run, own)
            write_best(rank(read_scored(scores), keep=own.best), scores, out=best)
        kept, rng = _read_best(best), torch.Generator().manual_seed(run.seeds(1)[0])
        chosen = [kept[index] for index in torch.randperm(len(kept), generator=rng)[: own.batch]]
        with run.timed("update"):
            clips_BCTHW = to_values([frames for _, frames in chosen])
            words_BL = without_some_prompts(read_prompts([prompt for prompt, _ in chosen]), rng)
            sigma_B = random_sigmas(len(chosen), rng, least=own.least_sigma)
            noise_BCTHW = torch.randn(clips_BCTHW.shape, generator=rng)
            loss = flow_errors(run.model, clips_BCTHW, words_BL, sigma_B=sigma_B, noise_BCTHW=noise_BCTHW).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = apply_gradients(run)
        return {"clips": len(kept), "loss": float(loss.detach()), "grad_norm": norm}


@lru_cache(maxsize=1)
def _read_best(best: Path) -> list[tuple[str, Frames]]:
    """Prompts and frames of a round's best clips."""
    return [(row["prompt"], read_frames(best.parent / row["video"])) for _, row in read_rows(best)]
