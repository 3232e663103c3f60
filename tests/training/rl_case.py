"""A config of stage 2 for the micro model, and a part of the rollout reward that tells its chains apart: random weights
hardly ever end a chain by themselves, and never write an answer."""

import json

from tests.training.conftest import pair_rows

from descore.training.config_file import read_config
from descore.training.rl.config import RlConfig

MARKS = json.dumps({"subject": 2, "dynamics": 1, "camera": "N/A", "environment": 2, "style": 0})


def marked_rows(count=8):
    """Pairs whose clips have marks, but for every third."""
    return [
        {**row, "marks_a": MARKS if i % 3 else "", "marks_b": MARKS if i % 3 else ""}
        for i, row in enumerate(pair_rows(count))
    ]


def share_of_vowels(chain, prompt, marks):  # noqa: ARG001
    """A rule that random chains satisfy to unlike degrees."""
    return sum(letter in "aeiou" for letter in chain) / max(len(chain), 1)


def nothing(chain, prompt, marks):  # noqa: ARG001
    return None


def rl_settings(folder, out):
    """Four steps of adapters, query and head, in float32; two pairs a step, three chains a clip."""
    return {
        "model": {"checkpoint": str(folder / "micro"), "precision": "float32"},
        "data": {"train": str(folder / "marked.csv"), "dataloader_num_workers": 0},
        "rollout": {"num_generations": 3, "max_completion_length": 8},
        "rewards": {
            "length_none_below": 1,
            "length_full_from": 8,
            "function": "tests.training.rl_case:share_of_vowels",
        },
        "policy": {"mask_truncated_completions": False, "beta": 0.1},
        "loss": {"bt_weight": 0.5},
        "trainable": {"lora": {"r": 4, "lora_alpha": 8}, "head": {"learning_rate": 3e-2}},
        "optim": {
            "learning_rate": 3e-3,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.0,
            "max_steps": 4,
            "per_device_train_batch_size": 2,
        },
        "run": {"out": str(out), "save_steps": 2},
    }


def make_rl_config(folder, out, *overrides):
    (folder / "rl.yaml").write_text(json.dumps(rl_settings(folder, out)), encoding="utf-8")
    return read_config(folder / "rl.yaml", RlConfig, overrides=overrides)


def fails(chain, prompt, marks):  # noqa: ARG001
    return {}["depth"]
