"""Grow the bundled model `tiny` from nothing, on drawn clips only.

    python experiments/grow_tiny/grow.py --out runs/tiny

Three steps, each resumed where it was killed: learn to write chains (next token, with one warm restart), then to score
(Bradley-Terry at the query, with the random mask, beside the next-token loss), then measure the reward's mean and
deviation on a split of its own. `record.json` beside the model says what was done, in which environment, and how the
curves went."""

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from descore.data.sampling import VideoSampling
from descore.model.checkpoint import Settings
from descore.model.descore_model import DescoreModel
from descore.model.small import small_config, small_processor
from descore.training.collate import SIGN, ChainCollator, PairCollator, TrainingPair
from descore.training.losses import chain_loss, pair_losses, sequences
from descore.training.trainer import DescoreTrainer, last_checkpoint, training_arguments
from descore.world.telling import TRAIN_SEED, Example, corpus, example, pair

RUBRIC = "Prompt: {prompt}\nDescribe the video. Then judge its subject, dynamics, camera, environment and style."

SAMPLING = VideoSampling(fps=4.0, min_frames=4, max_frames=8, min_pixels=32 * 32, max_pixels=64 * 64, size_multiple=16)
VOCABULARY = 1024
# Seeds far from those of the training pairs and of the test split.
CALIBRATION_SEED = TRAIN_SEED + 2
PAIR_SEED = TRAIN_SEED + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    chain_steps: int = 1200
    """Updates on chains."""
    chain_batch: int = 32
    """Clips in an update."""
    chain_learning_rate: float = 8e-4
    """Peak, after 5 % of warm-up; then down along a cosine."""
    again_steps: int = 400
    """Updates on further chains after a warm restart (Loshchilov & Hutter 2017)."""
    again_learning_rate: float = 5e-4
    """Peak of the restart."""
    pair_steps: int = 130
    """Updates on pairs."""
    pair_batch: int = 16
    """Pairs in an update: twice as many clips."""
    pair_learning_rate: float = 4e-4
    """Peak, for all weights."""
    head_learning_rate: float = 2e-3
    """Peak, for the query and the head, which start from nothing."""
    chain_drop: float = 0.5
    """The random mask."""
    chain_weight: float = 1.0
    """Of the next-token loss beside Bradley-Terry."""
    calibration_clips: int = 256
    """Clips for the mean and deviation of the reward."""
    seed: int = 0
    """Of the weights and the order of clips."""


class DrawnExamples(Dataset):  # type: ignore[type-arg]
    """Examples `start` to `start` + n - 1 of the training split, drawn when asked for."""

    def __init__(self, n: int, *, start: int = 0) -> None:
        self.n = n
        self.start = start

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Example:
        return example(TRAIN_SEED, self.start + index)


class DrawnPairs(DrawnExamples):
    """Pairs 0 to n - 1 of a training split of their own."""

    def __getitem__(self, index: int) -> TrainingPair:  # type: ignore[override]
        drawn = pair(PAIR_SEED, index)
        preference_K = np.array([SIGN[drawn.preference]], dtype=np.int8)
        return TrainingPair(a=drawn.a, b=drawn.b, preference_K=preference_K, number=index)


def new_model(plan: Plan) -> DescoreModel:
    """The tokenizer trained on the world's texts, and random weights."""
    torch.manual_seed(plan.seed)
    texts = [RUBRIC, "user\nassistant\n", *(f"<{tenth / 10:.1f} seconds>" for tenth in range(40))]
    processor = small_processor([*texts, *corpus(TRAIN_SEED, 4000)], vocabulary=VOCABULARY)
    settings = Settings(sampling=SAMPLING, max_chain_tokens=320)
    config = small_config(processor, vocabulary=VOCABULARY)
    return DescoreModel.from_backbone(config, processor=processor, settings=settings, rubric=RUBRIC)


def learn_chains(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Next-token loss."""
    return chain_loss(model, batch, model.hidden(batch)), {}


def learn_pairs(model: DescoreModel, batch: dict[str, Any], *, chain_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Bradley-Terry at the query, and the next-token loss of the same forward."""
    hidden_RTD = model.hidden(sequences(batch))
    pairs = pair_losses(model, hidden_RTD, batch, kind="bradley-terry")
    preferring = pairs.loss / pairs.count.clamp(min=1)
    writing = chain_loss(model, batch, hidden_RTD)
    metrics = {"bradley_terry": preferring, "next_token": writing, "pair_accuracy": pairs.metrics["pair_accuracy"]}
    return preferring + chain_weight * writing, metrics


def train_chains(
    model: DescoreModel, plan: Plan, out: Path, *, steps: int, learning_rate: float, start: int = 0
) -> list[dict[str, float]]:
    """Step one, and its restart. `start` is the first step's number among all: no example is shown twice."""
    trainer = DescoreTrainer(
        model=model,
        loss=learn_chains,
        args=training_arguments(
            out, steps=steps, batch=plan.chain_batch, learning_rate=learning_rate, seed=plan.seed + start
        ),
        train_dataset=DrawnExamples(steps * plan.chain_batch, start=start * plan.chain_batch),
        data_collator=ChainCollator(model.chat),
    )
    trainer.train(resume_from_checkpoint=resume_from(out))
    return list(trainer.state.log_history)


def train_pairs(model: DescoreModel, plan: Plan, out: Path) -> list[dict[str, float]]:
    """Step two. Query and head learn faster than what has learned already."""
    new = [model.query, model.head.weight]
    old = [p for p in model.backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": old, "lr": plan.pair_learning_rate}, {"params": new, "lr": plan.head_learning_rate}],
        betas=(0.9, 0.98),
        weight_decay=0.05,
    )
    trainer = DescoreTrainer(
        model=model,
        loss=partial(learn_pairs, chain_weight=plan.chain_weight),
        args=training_arguments(
            out, steps=plan.pair_steps, batch=plan.pair_batch, learning_rate=plan.pair_learning_rate, seed=plan.seed
        ),
        train_dataset=DrawnPairs(plan.pair_steps * plan.pair_batch),
        data_collator=PairCollator(chat=model.chat, chain_drop=plan.chain_drop, seed=plan.seed),
        optimizers=(optimizer, None),
    )
    trainer.train(resume_from_checkpoint=resume_from(out))
    return list(trainer.state.log_history)


def calibrate(model: DescoreModel, plan: Plan) -> Settings:
    """Settings with the mean and deviation of the reward on clips that nothing was trained on."""
    from descore.scorer import Scorer

    scorer = Scorer(model_for_scoring(model), name="tiny", batch_size=32)
    drawn = (example(CALIBRATION_SEED, index) for index in range(plan.calibration_clips))
    rewards = [s.reward for s in scorer.score_batch((e.clip, e.prompt) for e in drawn)]
    clips = (plan.chain_steps + plan.again_steps) * plan.chain_batch + 2 * plan.pair_steps * plan.pair_batch
    return replace(
        model.settings,
        reward_mean={"overall": round(fmean(rewards), 6)},
        reward_std={"overall": round(stdev(rewards), 6)},
        trained_on=f"{clips:,} drawn clips: coloured shapes, their motion, camera, setting and style",
    )


def model_for_scoring(model: DescoreModel) -> DescoreModel:
    """The model, said to be trained: it is, only its settings do not know yet."""
    model.settings = replace(model.settings, trained_on="drawn clips")
    return model.eval()


def resume_from(out: Path) -> str | None:
    """The run's last whole checkpoint."""
    found = last_checkpoint(out)
    return None if found is None else str(found)


def environment() -> dict[str, str]:
    """What the run depends on."""
    packages = {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers", "numpy")}
    return {"python": platform.python_version(), "cores": str(os.cpu_count()), **packages}


def main() -> None:
    """Grow, or go on growing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    out: Path = options.pop("out")
    plan = Plan(**options)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # clips are collated in a forked worker

    model = new_model(plan)
    first = {"steps": plan.chain_steps, "learning_rate": plan.chain_learning_rate}
    again = {"steps": plan.again_steps, "learning_rate": plan.again_learning_rate, "start": plan.chain_steps}
    curves = {
        "chains": train_chains(model, plan, out / "chains", **first),
        "chains_again": train_chains(model, plan, out / "chains-again", **again),
        "pairs": train_pairs(model, plan, out / "pairs"),
    }
    model.settings = calibrate(model, plan)
    model.backbone.to(torch.bfloat16)
    model.save_pretrained(out / "model")
    record = {"plan": asdict(plan), "environment": environment(), "curves": curves}
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"grown: {out / 'model'}")


if __name__ == "__main__":
    main()
