"""The golden runs of `descore train`: for each stage a short curve that shows a change of any step of it.

    python -m tests.training.golden sft
    python -m tests.training.golden cold-start
    python -m tests.training.golden rl

records one anew, beside what it was recorded with. The reason belongs into the commit's message."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.training.conftest import curve, make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

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


def golden_curve(folder):
    """Losses of twelve updates: all parts learn, each in a way of its own."""
    train_sft(make_config(folder, folder / "golden", *PARTS, "optim.max_steps=12"))
    return list(curve(folder / "golden").values())


def golden_cold_start(folder):
    """Losses of twelve updates: all parts learn, two dimensions with ties, and the chains beside them."""
    options = (*PARTS, "dimensions=[overall, motion]", "loss.kind=ties", "data.group_by_length=true")
    train_cold_start(make_cold_config(folder, folder / "golden", *options, "optim.max_steps=12"))
    return list(curve(folder / "golden").values())


def golden_rl(folder):
    """By name, what six rollouts came to, each learned from twice: all parts learn, groups in packs, ties and all
    opponents. On-policy the loss says little, so there is more than that."""
    write_table(folder / "marked.csv", marked_rows())
    options = ("policy.num_iterations=2", "policy.token_budget=200", "loss.kind=ties", "loss.opponents=all")
    train_rl(
        make_rl_config(
            folder, folder / "golden", *PARTS, *options, "optim.per_device_train_batch_size=1", "optim.max_steps=6"
        )
    )
    lines = [json.loads(line) for line in (folder / "golden" / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "policy_loss", "pair_loss", "kl", "entropy", "rollout_reward", "reward")
    return {name: [line.get(name) for line in lines] for name in names}


RUNS = {"sft": (RECORD, golden_curve), "cold-start": (COLD_START, golden_cold_start), "rl": (RL, golden_rl)}


def main():
    file, run = RUNS[sys.argv[1]]
    with TemporaryDirectory() as folder:
        record = {"environment": versions(), "losses": run(make_data(Path(folder)))}
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
