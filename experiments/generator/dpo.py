"""DPO from `descore pairs`, in rounds: make clips, score them, pair them, train on the pairs, and again.

Diffusion-DPO (Wallace et al. 2024, arXiv 2311.12908) for a flow: with the squared errors e of the velocity of a noised
clip, under the trained generator and under the one that the round began with,

    loss = -log sigmoid(-beta / 2 ((e_chosen - e_chosen,ref) - (e_rejected - e_rejected,ref)))

for one noise level and one noise, which both clips share. Errors are means over a clip's values, so beta is large.

A round's folder has what a user of descore has: clips as mp4 at the rewards' size, a table, `scores.csv`, and
`pairs.jsonl` in the form of diffusers' trainers. The frames that are trained on lie beside each mp4 as they were made.

Shapes: B pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from descore.data.tables import read_rows
from descore.data.write import table_writer
from descore.errors import ConfigError
from descore.io import make_directory
from descore.rewards import preference_pairs, read_scored, write_pairs, write_scores
from descore.scorer import Scorer
from descore.video.encoder import write_mp4
from experiments.generator.flow import flow_errors, generate, random_sigmas, to_values
from experiments.generator.model import Generator
from experiments.generator.rewards import enlarged_frames, model_reward
from experiments.generator.tuning import Run, apply_gradients
from experiments.generator.words import read_prompts
from experiments.generator.world import FPS, Frames

TABLE, SCORES, PAIRS, REFERENCE = "clips.csv", "scores.csv", "pairs.jsonl", "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoSettings:
    """Of the method."""

    round_updates: int = 50
    """Updates of a round; the run's updates divided by them are its rounds."""
    prompts: int = 32
    """Of a round; each round has others."""
    clips: int = 8
    """Of each prompt."""
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
        own = self.settings
        number = run.update // own.round_updates
        folder = run.out / f"round-{number}"
        if not (folder / PAIRS).is_file():
            self._collect(run, folder, number)
        pairs, reference = _read_pairs(folder), Generator.load(folder / REFERENCE)
        rng = torch.Generator().manual_seed(run.seeds(1)[0])
        chosen = [pairs[index] for index in torch.randperm(len(pairs), generator=rng)[: own.batch]]
        with run.timed("update"):
            loss, won = self._loss(run.model, reference, chosen, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = apply_gradients(run)
        return {"round": number, "pairs": len(pairs), "loss": float(loss.detach()), "won": won, "grad_norm": norm}

    def _loss(
        self, model: Generator, reference: Generator, pairs: list[ClipPair], rng: torch.Generator
    ) -> tuple[Tensor, float]:
        """The loss, and the share of the pairs whose chosen clip has become the more likely one."""
        clips_BCTHW = to_values([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
        words_BL = read_prompts([pair.prompt for pair in pairs]).repeat(2, 1)
        sigma_B = random_sigmas(len(pairs), rng).repeat(2)
        noise_BCTHW = torch.randn((len(pairs), *clips_BCTHW.shape[1:]), generator=rng).repeat(2, 1, 1, 1, 1)
        errors_B = flow_errors(model, clips_BCTHW, words_BL, sigma_B=sigma_B, noise_BCTHW=noise_BCTHW)
        with torch.no_grad():
            before_B = flow_errors(reference, clips_BCTHW, words_BL, sigma_B=sigma_B, noise_BCTHW=noise_BCTHW)
        (chosen_B, rejected_B), (chosen_ref_B, rejected_ref_B) = errors_B.chunk(2), before_B.chunk(2)
        won_B = (chosen_B - chosen_ref_B) < (rejected_B - rejected_ref_B)
        loss = dpo_loss(chosen_B, rejected_B, (chosen_ref_B, rejected_ref_B), beta=self.settings.beta)
        return loss, float(won_B.float().mean())

    def _collect(self, run: Run, folder: Path, number: int) -> None:
        """Make, score and pair the clips of a round. What was there of a run that was stopped here is made again."""
        own, row = self.settings, model_reward(run.plan.reward)
        run.model.save(folder / REFERENCE)
        with run.timed("generation"):
            _write_clips(run, folder, first=number * own.prompts, prompts=own.prompts, clips=own.clips)
        with run.timed("reward"):
            scorer = Scorer.from_pretrained(row.model)
            write_scores(folder / TABLE, folder / SCORES, scorer=scorer, overwrite=True, **row.sampling_params)
        chosen = preference_pairs(read_scored(folder / SCORES), per_prompt=own.pairs)
        if not chosen.pairs:
            raise ConfigError(f"{folder / SCORES}: no two clips of a prompt have unlike rewards; there is no pair")
        write_pairs(chosen, folder / SCORES, out=folder / PAIRS, form="diffusers")


def _write_clips(run: Run, folder: Path, *, first: int, prompts: int, clips: int) -> None:
    """Videos, frames and a table of them."""
    make_directory(folder / "clips")
    asked = [prompt for prompt in run.prompts(first, prompts) for _ in range(clips)]
    made = generate(run.model.eval(), asked, run.seeds(len(asked)), steps=run.plan.steps, guidance=run.plan.guidance)
    with table_writer(folder / TABLE, ("video", "prompt"), overwrite=True) as write:
        for number, (frames, prompt) in enumerate(zip(made, asked, strict=True)):
            video = folder / "clips" / f"{number:04d}.mp4"
            write_mp4(video, enlarged_frames(frames), fps=int(FPS), options={"crf": "8"})
            np.save(video.with_suffix(".npy"), frames)
            write({"video": f"clips/{video.name}", "prompt": prompt})


@lru_cache(maxsize=1)
def _read_pairs(folder: Path) -> list[ClipPair]:
    """A round's pairs with the frames as they were made."""

    def frames(video: str) -> Frames:
        made: Frames = np.load((folder / video).with_suffix(".npy"))
        return made

    return [
        ClipPair(prompt=row["prompt"], chosen=frames(row["chosen_video"]), rejected=frames(row["rejected_video"]))
        for _, row in read_rows(folder / PAIRS)
    ]
