"""What is collated, what is learned from it, and that a killed run goes on as if it had not been."""

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from torch.utils.data import Dataset
from transformers import TrainingArguments

from descore.training.collate import ChainCollator, TrainingExample
from descore.training.losses import chain_loss
from descore.training.models import last_checkpoint
from descore.training.trainer import DescoreTrainer


def example(seed):
    clip, chain = noise_clip(seed, frames=2), f"I see {'noise ' * (seed % 3)}."
    return TrainingExample(clip=clip, prompt=f"a red ball {seed}", chain=chain)


def test_chain_loss_against_the_backbones_own(micro):
    """transformers' loss with labels on the chain's tokens, over all columns of all logits."""
    batch = ChainCollator(micro.chat)([example(i) for i in range(3)])
    labels = batch["input_ids"].masked_fill(~batch["chain_mask"], -100)
    inputs = {key: value for key, value in batch.items() if key != "chain_mask"}
    theirs = micro.backbone(**inputs, labels=labels).loss
    torch.testing.assert_close(chain_loss(micro, batch, micro.hidden(batch)), theirs, atol=1e-5, rtol=0)


class Examples(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        return example(index)


def run(out, *, stop_after=None, resume=False):
    """Twelve steps of two examples, a checkpoint every four; optionally cut off, optionally gone on with."""
    torch.manual_seed(0)
    model = build_micro().train()
    args = TrainingArguments(
        output_dir=str(out),
        max_steps=12,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        bf16=True,
        use_cpu=True,
        save_steps=4,
        logging_steps=1,
        remove_unused_columns=False,
        report_to=[],
    )
    trainer = DescoreTrainer(
        model=model,
        loss=lambda m, batch: (chain_loss(m, batch, m.hidden(batch)), {}),
        args=args,
        train_dataset=Examples(),
        data_collator=ChainCollator(model.chat),
    )
    if stop_after:
        from transformers import TrainerCallback

        class Cut(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):  # noqa: ARG002
                if state.global_step == stop_after:
                    raise KeyboardInterrupt

        trainer.add_callback(Cut())
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        return None
    trainer.train(resume_from_checkpoint=str(last_checkpoint(out)) if resume else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, model.state_dict()


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_where_the_whole_one_ends(tmp_path):
    losses, weights = run(tmp_path / "whole")
    run(tmp_path / "cut", stop_after=6)
    losses_again, weights_again = run(tmp_path / "cut", resume=True)
    assert losses_again == losses
    assert losses[-1] < losses[0]
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
