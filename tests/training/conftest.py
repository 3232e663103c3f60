"""A micro model on disk, small films, tables of chains and of pairs, and configs that a test changes by overrides."""

import csv
import gc
import json
from functools import partial

import numpy as np
import pytest
import torch
from tests.conftest import build_micro

from descore.training.cold_start import train_cold_start
from descore.training.config import ColdStartConfig, SftConfig
from descore.training.config_file import read_config
from descore.training.sft import train_sft
from descore.video.encoder import write_mp4

EXAMPLES = 10


def noise_film(path, seed):
    frames = np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    write_mp4(path, frames, fps=4)


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def chain_rows(count=EXAMPLES):
    """Chains of unlike lengths, so that batches weigh unlike."""
    return [
        {"prompt": f"a red ball {i}", "video": f"{i}.mp4", "chain": "a red ball rolls to the left " * (1 + i % 3)}
        for i in range(count)
    ]


def pair_rows(count=8):
    """Pairs of two dimensions with ties, a missing label, and chains of unlike lengths; one pair has no chains."""
    return [
        {
            "prompt": f"a red ball {i // 2}",
            "video_a": f"{2 * i % EXAMPLES}.mp4",
            "video_b": f"{(2 * i + 1) % EXAMPLES}.mp4",
            "preference": ("a", "b", "tie", "b")[i % 4],
            "preference.motion": ("b", "", "a", "tie")[i % 4],
            "chain_a": "" if i == 5 else "a red ball rolls to the left " * (1 + i % 3),
            "chain_b": "" if i == 5 else "a ball " * (1 + i % 4),
            "rating_a": 3.0 + i % 4,
            "rating_b": 3.5,
        }
        for i in range(count)
    ]


def make_data(folder):
    """A model, films, train.csv and eval.csv, pairs.csv and pairs_eval.csv."""
    build_micro().save_pretrained(folder / "micro")
    for seed in range(EXAMPLES):
        noise_film(folder / f"{seed}.mp4", seed)
    write_table(folder / "train.csv", chain_rows())
    write_table(folder / "eval.csv", chain_rows(3))
    write_table(folder / "pairs.csv", pair_rows())
    write_table(folder / "pairs_eval.csv", pair_rows(6))
    return folder


def make_config(folder, out, *overrides):
    """Six updates on adapters with dropout, in float32."""
    settings = {
        "model": {"checkpoint": str(folder / "micro"), "precision": "float32"},
        "data": {"train": str(folder / "train.csv"), "dataloader_num_workers": 0},
        "trainable": {"lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}},
        "optim": {
            "learning_rate": 3e-3,
            "lr_scheduler_type": "cosine",
            "max_steps": 6,
            "per_device_train_batch_size": 4,
        },
        "run": {"out": str(out), "logging_steps": 1, "save_steps": 3},
    }
    (folder / "sft.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return read_config(folder / "sft.yaml", SftConfig, overrides=overrides)


def make_cold_config(folder, out, *overrides):
    """Six updates of query, head and adapters with dropout, in float32, beside the next-token loss."""
    settings = {
        "model": {"checkpoint": str(folder / "micro"), "precision": "float32"},
        "data": {"train": str(folder / "pairs.csv"), "dataloader_num_workers": 0},
        "loss": {"chain_weight": 0.1},
        "trainable": {"lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}, "head": {"learning_rate": 3e-2}},
        "optim": {
            "learning_rate": 3e-3,
            "lr_scheduler_type": "cosine",
            "max_steps": 6,
            "per_device_train_batch_size": 4,
        },
        "run": {"out": str(out), "logging_steps": 1, "save_steps": 3},
    }
    (folder / "cold.yaml").write_text(json.dumps(settings), encoding="utf-8")
    return read_config(folder / "cold.yaml", ColdStartConfig, overrides=overrides)


@pytest.fixture(scope="session", autouse=True)
def _quick_garbage_collection():
    """Each end of a training run collects garbage, which would take .3 s for the objects of all imported packages."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("sft"))


@pytest.fixture(scope="session")
def config_of(data):
    return partial(make_config, data)


@pytest.fixture(scope="session")
def train(config_of):
    """Train in a run directory, and give back what came of it."""

    def run(out, *overrides, **options):
        torch.manual_seed(99)  # whatever was drawn before must not matter
        return train_sft(config_of(out, *overrides), **options)

    return run


@pytest.fixture(scope="session")
def cold_config_of(data):
    return partial(make_cold_config, data)


@pytest.fixture(scope="session")
def cold_start(cold_config_of):
    """Learn to score in a run directory, and give back what came of it."""

    def run(out, *overrides, **options):
        torch.manual_seed(99)  # whatever was drawn before must not matter
        return train_cold_start(cold_config_of(out, *overrides), **options)

    return run


def curve(out):
    """Losses by step; of steps that a resumed run did again, the last."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
