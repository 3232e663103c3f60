"""DPO from `descore pairs`, in rounds: make clips, score them, pair them, train on the pairs, and again.

Diffusion-DPO (Wallace et al. 2024, arXiv 2311.12908) for a flow: with the squared errors e of the velocity of a noised
clip, under the trained generator and under the one that the round began with,

    loss = -log sigmoid(-beta / 2 ((e_chosen - e_chosen,ref) - (e_rejected - e_rejected,ref)))

for one noise level and one noise, which both clips share. Errors are means over a clip's values, so beta is large.

A round's pairs are in `pairs.jsonl`, in the form of diffusers' trainers; see `rounds` for the clips.

Shapes: B pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from descore.data.tables import read_rows
from descore.errors import ConfigError
from descore.rewards import preference_pairs, read_scored, write_pairs
from experiments.generator.flow import flow_errors, random_sigmas, to_values
from experiments.generator.model import Generator
from experiments.generator.rounds import RoundSettings, read_frames, read_reference, round_folder, scored_round
from experiments.generator.tuning import Run, apply_gradients
from experiments.generator.words import read_prompts
from experiments.generator.world import Frames

PAIRS = "pairs.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoSettings(RoundSettings):
    """Of the method."""

    pairs: int = 2
    """Of each prompt at most: the best and the worst, the second best and the second worst, and so on."""
    batch: int = 8
    """Pairs of an update."""
    beta: float = 2000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipPair:
    """Two clips of one prompt."""

    prompt: str
    chosen: Frames
    rejected: Frames


def dpo_loss(chosen_B: Tensor, rejected_B: Tensor, reference: tuple[Tensor, Tensor], *, beta: float) -> Tensor:
    """Mean over pairs of the loss, from the squared errors of the trained generator and of the reference (chosen,
    rejected)."""
    gained_B = (chosen_B - reference[0]) - (rejected_B - reference[1])
    return -logsigmoid(-beta / 2 * gained_B).mean()


@dataclass(frozen=True, slots=True)
class Dpo:
    """The method."""

    settings: DpoSettings

    def __call__(self, run: Run) -> Mapping[str, float]:
        """Make a round's pairs if it has none yet, and take one step on some of them."""
        own, file = self.settings, round_folder(run, self.settings) / PAIRS
        if not file.is_file():
            scores = scored_round(run, own)
            chosen = preference_pairs(read_scored(scores), per_prompt=own.pairs)
            if not chosen.pairs:
                raise ConfigError(f"{scores}: no two clips of a prompt have unlike rewards; there is no pair")
            write_pairs(chosen, scores, out=file, form="diffusers")
        pairs, reference = _read_pairs(file), read_reference(run, own)
        rng = torch.Generator().manual_seed(run.seeds(1)[0])
        batch = [pairs[index] for index in torch.randperm(len(pairs), generator=rng)[: own.batch]]
        with run.timed("update"):
            loss, won = self._loss(run.model, reference, batch, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = apply_gradients(run)
        return {"pairs": len(pairs), "loss": float(loss.detach()), "won": won, "grad_norm": norm}

    def _loss(
        self, model: Generator, reference: Generator, pairs: list[ClipPair], rng: torch.Generator
    ) -> tuple[Tensor, float]:
        """The loss, and the share of the pairs whose chosen clip has become the more likely one."""
        clips_BCTHW = to_values([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
        words_BL = read_prompts([pair.prompt for pair in pairs]).repeat(2, 1)
        sigma_B = random_sigmas(len(pairs), rng, least=self.settings.least_sigma).repeat(2)
        noise_BCTHW = torch.randn((len(pairs), *clips_BCTHW.shape[1:]), generator=rng).repeat(2, 1, 1, 1, 1)
        errors_B = flow_errors(model, clips_BCTHW, words_BL, sigma_B=sigma_B, noise_BCTHW=noise_BCTHW)
        with torch.no_grad():
            before_B = flow_errors(reference, clips_BCTHW, words_BL, sigma_B=sigma_B, noise_BCTHW=noise_BCTHW)
        (chosen_B, rejected_B), (chosen_ref_B, rejected_ref_B) = errors_B.chunk(2), before_B.chunk(2)
        won_B = (chosen_B - chosen_ref_B) < (rejected_B - rejected_ref_B)
        loss = dpo_loss(chosen_B, rejected_B, (chosen_ref_B, rejected_ref_B), beta=self.settings.beta)
        return loss, float(won_B.float().mean())


@lru_cache(maxsize=1)
def _read_pairs(file: Path) -> list[ClipPair]:
    """A round's pairs with the frames as they were made."""
    return [
        ClipPair(
            prompt=row["prompt"],
            chosen=read_frames(file.parent / row["chosen_video"]),
            rejected=read_frames(file.parent / row["rejected_video"]),
        )
        for _, row in read_rows(file)
    ]
