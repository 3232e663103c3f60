"""The golden runs of `descore train`: for each stage a short curve that shows a change of any step of it.

    python -m tests.training.golden sft
    python -m tests.training.golden cold-start
    python -m tests.training.golden rl

records one anew, beside what it was recorded with. The reason belongs into the commit's message."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from tests.training.conftest import curve, make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

from descore.model.generation import sample_token_ids
from descore.training.cold_start import train_cold_start
from descore.training.metrics import versions
from descore.training.rl.run import train_rl
from descore.training.sft import train_sft

RECORD = Path(__file__).with_name("golden_sft.json")
COLD_START = RECORD.with_name("golden_cold_start.json")
RL = RECORD.with_name("golden_rl.json")
PARTS = (
    "trainable.merger.mode=full",
    "trainable.vision_tower.mode=lora",
    "optim.gradient_accumulation_steps=2",
    "optim.weight_decay=0.1",
)
NEAR = 1e-4
"""How far beside its share of the distribution a token may have been drawn in the record."""


class RecordedSampler:
    """The sampler, and the tokens that it drew. Of some hundred draws a few fall so near to the edge between two tokens
    that another processor may draw the other one, and all that follows would be another run: there the recorded one is
    taken. Any other difference fails."""

    def __init__(self, recorded):
        self.recorded, self.drawn = recorded, []

    def __call__(self, logits_RV, uniform_R1, *, temperature):
        token_R = sample_token_ids(logits_RV, uniform_R1, temperature=temperature)
        if self.recorded is not None:
            expected_R = torch.tensor([int(token) for token in self.recorded[len(self.drawn)].split()])
            end_RV = (logits_RV.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
            start_RV = torch.nn.functional.pad(end_RV[:, :-1], (1, 0))
            start_R1, end_R1 = (edge_RV.gather(1, expected_R[:, None]) for edge_RV in (start_RV, end_RV))
            near_R = ((start_R1 - NEAR < uniform_R1) & (uniform_R1 < end_R1 + NEAR))[:, 0]
            assert ((token_R == expected_R) | near_R).all(), f"draw {len(self.drawn)}: {token_R}, not {expected_R}"
            token_R = expected_R
        self.drawn.append(" ".join(str(token) for token in token_R.tolist()))
        return token_R


def golden_curve(folder):
    """Losses of twelve updates: all parts learn, each in a way of its own."""
    train_sft(make_config(folder, folder / "golden", *PARTS, "optim.max_steps=12"))
    return list(curve(folder / "golden").values())


def golden_cold_start(folder):
    """Losses of twelve updates: all parts learn, two dimensions with ties, and the chains beside them."""
    options = (*PARTS, "dimensions=[overall, motion]", "loss.kind=ties", "data.group_by_length=true")
    train_cold_start(make_cold_config(folder, folder / "golden", *options, "optim.max_steps=12"))
    return list(curve(folder / "golden").values())


def golden_rl(folder, recorded=None):
    """By name, what six rollouts came to, each learned from twice: all parts learn, groups in packs, ties and all
    opponents. On-policy the loss says little, so there is more than that. recorded: the tokens of the record."""
    write_table(folder / "marked.csv", marked_rows())
    options = ("policy.num_iterations=2", "policy.token_budget=200", "loss.kind=ties", "loss.opponents=all")
    options = (*PARTS, *options, "optim.per_device_train_batch_size=1", "optim.max_steps=6")
    sampler = RecordedSampler(recorded)
    with patch("descore.model.generation.sample_token_ids", sampler):
        train_rl(make_rl_config(folder, folder / "golden", *options))
    lines = [json.loads(line) for line in (folder / "golden" / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "policy_loss", "pair_loss", "kl", "entropy", "rollout_reward", "reward")
    return {name: [line.get(name) for line in lines] for name in names} | {"tokens": sampler.drawn}


RUNS = {"sft": (RECORD, golden_curve), "cold-start": (COLD_START, golden_cold_start), "rl": (RL, golden_rl)}


def main():
    file, run = RUNS[sys.argv[1]]
    with TemporaryDirectory() as folder:
        record = {"environment": versions(), "losses": run(make_data(Path(folder)))}
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
