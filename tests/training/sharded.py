"""Two updates with the weights sharded over all processes by PyTorch's fully_shard, beside the same with whole weights.

    python -m torch.distributed.run --nproc_per_node=2 -m tests.training.sharded FILE

Writes what was learned to FILE as a checkpoint of a sharded run holds it, reads it back into shards and into a whole
model, and fails where anything differs."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tests.conftest import build_micro, noise_clip
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from descore.training.cold_start import pair_batch_loss
from descore.training.collate import PairCollator, TrainingExample, TrainingPair
from descore.training.config import LoraConfig, LossConfig, OptimConfig, PairTrainableConfig
from descore.training.models import load_learned, parameter_groups, set_trainable, trainable_weights
from descore.training.trainer import LossModule

TRAINABLE = PairTrainableConfig(lora=LoraConfig(r=2, lora_alpha=4))


def new_learner(*, sharded):
    model = build_micro()
    set_trainable(model, TRAINABLE, precision=torch.float32)
    learner = LossModule(model, partial(pair_batch_loss, loss=LossConfig()))
    if sharded:
        for layer in (*model.backbone.model.language_model.layers, *model.backbone.model.visual.blocks):
            fully_shard(layer)
        fully_shard(learner)
    return learner


def pair(number):
    a, b = (TrainingExample(clip=noise_clip(2 * number + side), prompt="a ball", chain="a red ball") for side in (0, 1))
    preference_K = np.ones(1, dtype=np.int8)
    return TrainingPair(a=a, b=b, preference_K=preference_K, number=number, rating_a_K=None, rating_b_K=None)


def learn(learner):
    """The losses of two updates. Each process has the same pairs."""
    optimizer = torch.optim.AdamW(
        parameter_groups(learner.model, TRAINABLE, OptimConfig(max_steps=2, learning_rate=1e-2))
    )
    batch = PairCollator(chat=learner.model.chat, chain_drop=0.0, seed=0)([pair(0), pair(1)])
    losses = []
    for _ in range(2):
        loss, _ = learner(batch)
        loss.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(1)
    whole = new_learner(sharded=False)
    torch.manual_seed(1)
    shards = new_learner(sharded=True)
    assert learn(whole) == learn(shards)
    expected = trainable_weights(whole.model)
    # As accelerate gathers them for Trainer's `save_model`.
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=True)
    gathered = get_model_state_dict(shards, options=options)
    if dist.get_rank() == 0:
        assert all(torch.equal(gathered[f"model.{name}"], weight) for name, weight in expected.items())
        save_file({name: gathered[f"model.{name}"].contiguous() for name in expected}, sys.argv[1])
    dist.barrier()
    for sharded in (True, False):
        again = new_learner(sharded=sharded)
        load_learned(again.model, Path(sys.argv[1]))
        found = {n: w.full_tensor() if sharded else w for n, w in trainable_weights(again.model).items()}
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
