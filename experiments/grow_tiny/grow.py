"""Train the bundled model from random weights, on drawn clips, generated clips and real footage, sound and harmed.

    python -m experiments.footage --out runs/footage
    python -m experiments.generated --clips FOLDER --out runs/generated
    python -m experiments.grow_tiny.grow --footage runs/footage --generated runs/generated --out runs/tiny
        [--start MODEL --see-steps 0 ...]

The eyes begin as EfficientNet-lite0, which was trained on ImageNet's photographs, and this network is left as it is;
so are the vectors of words, which are MiniLM's.
Five lessons, each of which resumes where it was stopped: see (what makes tokens of the network's features, on labels of
every part of the picture), read (which texts mean much the same, and how near they are to pictures), look
(descriptions, and the labels of see from the language model's states), judge (whole chains), prefer (Bradley-Terry at
the query under the random mask, with the next-token loss). A lesson of no updates is left out. With --start, a trained
model continues, with a new query and head. The model that writes chains and has not scored is kept in `chains/`. At the
end the reward's mean and deviation are measured on clips that training has not. `record.json` beside the model has the
plan, the environment and the curves."""

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from descore.model.checkpoint import CheckpointSettings
from descore.model.efficient_vl import EfficientVLConfig, weights_of_network
from descore.model.modeling import DescoreModel
from descore.model.small import small_config, small_processor
from descore.scorer import Scorer
from descore.synthetic.splits import Split, corpus, draw_example
from descore.training.collate import PairCollator
from descore.training.losses import chain_loss, model_inputs, pair_losses
from descore.training.models import last_checkpoint
from descore.training.trainer import DescoreTrainer
from experiments.footage.clips import Footage
from experiments.footage.cutouts import CutOuts
from experiments.footage.examples import footage_example
from experiments.generated.baselines import MiniLm
from experiments.generated.clips import Generated, Sources
from experiments.generated.examples import Examples
from experiments.generated.labels import label_names
from experiments.generated.things import CAMERA, EMPTY, PLACES, THINGS, words_of
from experiments.generated.words import Words
from experiments.grow_tiny.drawn import PATCH, SAMPLING, SIDE
from experiments.grow_tiny.lessons import (
    COMPARED_EVERY,
    ChainItemCollator,
    Judge,
    Lesson,
    Prefer,
    PreferCollator,
    generated_texts,
    has_own_chains,
)
from experiments.grow_tiny.meanings import Meanings
from experiments.grow_tiny.optimizer import MuonAndAdamW, split_weights
from experiments.grow_tiny.own_chains import as_trained, write_own_chains
from experiments.grow_tiny.plan import Plan
from experiments.grow_tiny.reading import Readings, read
from experiments.grow_tiny.teacher import Teacher, released_weights
from experiments.grow_tiny.texts import Texts, prompts_for, texts_to_read, vectors_of
from experiments.grow_tiny.views import DescribedViews, RealClips, Views
from experiments.grow_tiny.vision import look, see
from experiments.grow_tiny.word_vectors import label_vectors, spoken, with_words, word_vectors

if TYPE_CHECKING:
    from transformers import TrainingArguments

RUBRIC = "Prompt: {prompt}\nDescribe the video. Then judge its subject, dynamics, camera, environment and style."

WIDTH = 256
"""Of the language model."""
VOCABULARY, COMMON_WORDS = 2048, 4000
"""Entries of the tokenizer that are learned from the lessons' texts, and words of English that it has besides."""
NAMING = (*THINGS.values(), *sorted(PLACES | CAMERA | EMPTY))
"""Words by which prompts are understood."""
CALIBRATION_START = 10**9
"""First example of real footage for calibration, beyond all that training uses."""
FOOTAGE_PROMPTS, GENERATED_TEXTS = 400, 2000
"""Examples of real footage and of generated clips whose texts train the tokenizer."""


def initial_model(plan: Plan, real_clips: RealClips, out: Path) -> DescoreModel:
    """The model before the lessons, saved so that a resumed run has the same tokenizer."""
    if not out.is_dir():
        model = continued_model(plan) if plan.start else new_model(plan, real_clips)
        model.save_pretrained(out)
    model = DescoreModel.from_pretrained(out, device="cpu")
    for name, weight in model.backbone.model.visual.named_parameters():
        weight.requires_grad_(name.startswith("merger."))
    model.backbone.get_input_embeddings().weight.requires_grad_(False)
    # On a CPU and at these lengths, eager attention trains faster.
    model.backbone.set_attn_implementation({"text_config": "eager"})
    return model


def continued_model(plan: Plan) -> DescoreModel:
    """A trained model with a new query and head."""
    torch.manual_seed(plan.seed)
    old = DescoreModel.from_pretrained(plan.start, device="cpu")
    return DescoreModel(old.backbone, chat=old.chat, settings=settings())


def settings() -> CheckpointSettings:
    """Settings of a model that has not scored yet."""
    return CheckpointSettings(sampling=SAMPLING, max_chain_tokens=192)


def new_model(plan: Plan, real_clips: RealClips) -> DescoreModel:
    """Random weights behind the eyes, and a tokenizer trained on drawn and real examples."""
    torch.manual_seed(plan.seed)
    real = (footage_example(real_clips.footage, "train", index) for index in range(FOOTAGE_PROMPTS))
    texts = [RUBRIC, "user\nassistant\n", *(f"<{tenth / 10:.1f} seconds>" for tenth in range(40))]
    texts += [text for shown in real for text in (shown.prompt, shown.chain)]
    texts += generated_texts(real_clips.examples.words, GENERATED_TEXTS)
    processor = small_processor([*texts, *corpus(4000)], vocabulary=VOCABULARY, patch=PATCH)
    processor.tokenizer = with_words(processor.tokenizer, known_words(real_clips))
    entries = -(-(len(processor.tokenizer) + 1) // 8) * 8  # the query joins later
    config = with_eyes(small_config(processor, vocabulary=entries, width=WIDTH, layers=6))
    model = DescoreModel.from_backbone(config, processor=processor, settings=settings(), rubric=RUBRIC)
    weights = weights_of_network(released_weights(real_clips.footage.folder / "archives"))
    model.backbone.model.visual.load_state_dict(weights, strict=False)  # without the merger's
    words = spoken(processor.tokenizer, entries)
    embed, visual = real_clips.meanings.embed, model.backbone.model.visual
    vector_NF, axes_DF = word_vectors(words, embed, width=WIDTH, seed=plan.seed)
    model.backbone.get_input_embeddings().weight.data.copy_(vector_NF)
    visual.meanings.weight.data.copy_(label_vectors(label_names(), embed, axes_DF).T)
    nn.init.eye_(visual.merger.meaning.weight)
    return model


def known_words(real_clips: RealClips) -> list[str]:
    """Words of common English, of labels and of training's prompts."""
    texts = [*label_names(), *real_clips.examples.words.prompts["train"], *NAMING]
    named = dict.fromkeys(word for text in texts for word in words_of(text) if word.isalpha())
    return list(dict.fromkeys([*real_clips.common_words(COMMON_WORDS), *named]))


def with_eyes(config: Any) -> EfficientVLConfig:  # noqa: ANN401
    """A config of Qwen3-VL with these eyes for its own."""
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return EfficientVLConfig(
        text_config=config.text_config.to_dict() | {"tie_word_embeddings": False},
        vision_config={"out_hidden_size": WIDTH, "meaning_size": WIDTH},
        tie_word_embeddings=False,
        **{name: getattr(config, name) for name in ids},
    )


def arguments(out: Path, *, steps: int, batch: int, plan: Plan, **more: Any) -> "TrainingArguments":  # noqa: ANN401
    """bf16, a checkpoint every 100 updates, one worker that reads ahead, items in order."""
    from transformers import TrainingArguments  # after descore.model has imported torchvision

    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=plan.learning_rate,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        save_steps=100,
        save_total_limit=2,
        logging_steps=20,
        dataloader_num_workers=1,
        dataloader_prefetch_factor=4,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        report_to=[],
        seed=plan.seed,
        **more,
    )


def learn_chains(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Next-token loss."""
    return chain_loss(model, batch, model.hidden(batch)), {}


def learn_pairs(
    model: DescoreModel, batch: dict[str, Any], *, chain_weight: float, margin_scale: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Bradley-Terry at the query, with the measured harm as margin where it is known, and the next-token loss of the
    same forward."""
    hidden_RTD = model.hidden(model_inputs(batch))
    pairs = pair_losses(model, hidden_RTD, batch, kind="margin", margin_scale=margin_scale)
    bradley_terry = pairs.loss / pairs.count.clamp(min=1)
    next_token = chain_loss(model, batch, hidden_RTD)
    metrics = {
        "bradley_terry": bradley_terry,
        "next_token": next_token,
        "pair_accuracy": pairs.metrics["pair_accuracy"],
    }
    return bradley_terry + chain_weight * next_token, metrics


def new_optimizer(
    model: DescoreModel, plan: Plan, *, share: float = 1.0, others: Sequence[dict[str, Any]] = ()
) -> MuonAndAdamW:
    """An optimizer at this share of the plan's learning rates. others: groups of other weights."""
    inside, outside = split_weights((n, w) for n, w in model.backbone.named_parameters() if w.requires_grad)
    matrices = [{"params": inside, "lr": share * plan.matrix_learning_rate}]
    return MuonAndAdamW(matrices, [*others, {"params": outside, "lr": share * plan.learning_rate}])


def optimizer_with(model: DescoreModel, plan: Plan, heads: nn.Module) -> MuonAndAdamW:
    """An optimizer of the model's weights, and of heads beside it."""
    return new_optimizer(model, plan, others=[{"params": list(heads.parameters()), "lr": plan.learning_rate}])


def eyes_optimizer(model: DescoreModel, plan: Plan, heads: nn.Module) -> MuonAndAdamW:
    """An optimizer of what is trained of the eyes, and of heads beside them."""
    trained = [(n, w) for n, w in model.backbone.model.visual.named_parameters() if w.requires_grad]
    inside, outside = split_weights([*trained, *heads.named_parameters()])
    return MuonAndAdamW(
        [{"params": inside, "lr": plan.matrix_learning_rate}], [{"params": outside, "lr": plan.learning_rate}]
    )


def train_chains(
    model: DescoreModel, plan: Plan, out: Path, lesson: Lesson, *, warmup: int, decay: float = 0.0
) -> list[dict[str, float]]:
    """A lesson on chains. decay: last share of the lesson, over which the learning rate falls. Returns the curve."""
    steps = len(lesson) // plan.batch
    args = arguments(
        out,
        steps=steps,
        batch=plan.batch,
        plan=plan,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=warmup,
        lr_scheduler_kwargs={
            "num_decay_steps": round(decay * steps),
            "decay_type": "linear",
            "min_lr_ratio": plan.prefer_share,
        },
    )
    trainer = DescoreTrainer(
        model=model,
        loss=learn_chains,
        args=args,
        train_dataset=lesson,
        data_collator=ChainItemCollator(model.chat),
        optimizers=(new_optimizer(model, plan), None),
    )
    return train(trainer)


def train_pairs(model: DescoreModel, plan: Plan, out: Path, lesson: Lesson) -> list[dict[str, float]]:
    """The lesson on pairs. Returns the curve."""
    args = arguments(
        out, steps=plan.prefer_steps, batch=plan.pair_batch, plan=plan, lr_scheduler_type="cosine", warmup_steps=20
    )
    head = {"params": [model.query, model.head.weight], "lr": plan.head_learning_rate}
    trainer = DescoreTrainer(
        model=model,
        loss=partial(learn_pairs, chain_weight=plan.chain_weight, margin_scale=plan.margin_scale),
        args=args,
        train_dataset=lesson,
        data_collator=PreferCollator(PairCollator(chat=model.chat, chain_drop=plan.chain_drop, seed=plan.seed)),
        optimizers=(new_optimizer(model, plan, share=plan.prefer_share, others=[head]), None),
    )
    return train(trainer)


def train(trainer: DescoreTrainer) -> list[dict[str, float]]:
    """Train to the end, from the last whole checkpoint if there is one. Returns the curve."""
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return list(trainer.state.log_history)


def calibrate(model: DescoreModel, plan: Plan, footage: Footage) -> CheckpointSettings:
    """Settings with the mean and deviation of the reward on clips outside of training."""
    scorer = Scorer(as_trained(model), name="grown", batch_size=32)
    half = plan.calibration_clips // 2
    drawn = [draw_example(Split.CALIBRATION, index, size=(SIDE, SIDE)) for index in range(half)]
    real = [footage_example(footage, "train", CALIBRATION_START + index, pixels=SIDE**2) for index in range(half)]
    requests = [(example.clip, example.prompt) for examples in (drawn, real) for example in examples]
    rewards = [score.reward for score in scorer.score_batch(requests)]
    judged = plan.judge_steps - plan.judge_steps // COMPARED_EVERY
    written = (plan.see_steps + plan.look_steps + judged) * plan.batch
    clips = plan.clips_before + written + 2 * plan.prefer_steps * plan.pair_batch
    return model.settings.model_copy(
        update={
            "reward_mean": {"overall": round(fmean(rewards), 6)},
            "reward_std": {"overall": round(stdev(rewards), 6)},
            "trained_on": f"{clips:,} clips: drawn scenes, generated clips and real footage, sound and harmed",
        }
    )


def environment() -> dict[str, str]:
    """Versions and cores."""
    packages = {name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers", "numpy")}
    return {"python": platform.python_version(), "cores": str(os.cpu_count()), **packages}


def lessons(
    model: DescoreModel, plan: Plan, real_clips: RealClips, out: Path
) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Run the lessons in order; yield the name and curve of each."""
    examples, footage, kept = real_clips.examples, real_clips.footage, out / "texts.safetensors"
    if plan.see_steps:
        views = Views(real_clips=real_clips, size=plan.see_steps * plan.batch, side=SIDE)
        optimizer = partial(eyes_optimizer, model, plan)
        yield "see", see(model, views, out / "see", batch=plan.batch, optimizer=optimizer)
    if plan.read_steps:
        size = plan.read_steps * plan.read_batch
        readings = Readings(real_clips=real_clips, size=size, side=SIDE, texts=open_texts(real_clips, kept))
        optimizer = partial(optimizer_with, model, plan)
        yield "read", read(model, readings, out / "read", batch=plan.read_batch, optimizer=optimizer)
    if plan.look_steps:
        size = plan.look_steps * plan.batch
        described = DescribedViews(real_clips=real_clips, size=size, side=SIDE, texts=open_texts(real_clips, kept))
        optimizer = partial(optimizer_with, model, plan)
        yield "look", look(model, described, out / "look", batch=plan.batch, optimizer=optimizer)
    look_clips, judge_clips = plan.look_steps * plan.batch, plan.judge_steps * plan.batch
    if judge_clips:
        lesson = Lesson(Judge(examples, footage, plan.batch), judge_clips, start=look_clips + plan.first)
        warmup = 0 if look_clips else plan.warmup_steps
        yield "judge", train_chains(model, plan, out / "judge", lesson, warmup=warmup, decay=plan.judge_decay)
    if not (out / "chains").is_dir():
        model.save_pretrained(out / "chains")
    pairs = plan.prefer_steps * plan.pair_batch
    if pairs:
        prefer = Prefer(examples, footage)
        numbers = [number for number in range(plan.first, plan.first + pairs) if has_own_chains(number)]
        own_chains = write_own_chains(model, prefer.true_pair, numbers, out / "own_chains.jsonl")
        lesson = Lesson(replace(prefer, own_chains=own_chains), pairs, start=plan.first)
        yield "prefer", train_pairs(model, plan, out / "prefer", lesson)


def open_texts(real_clips: RealClips, path: Path) -> Texts:
    """Texts with MiniLM's vectors, which are kept in this file."""
    texts = texts_to_read(real_clips.examples.words, real_clips.cut_outs, label_names())
    return Texts(texts=texts, vector_ND=vectors_of(texts, real_clips.meanings.embed, path))


def open_real_clips(generated: Generated, footage: Footage) -> RealClips:
    """Clips of both stores, with the teachers, which are downloaded if they are not there."""
    archives = footage.folder / "archives"
    words = Words.open(generated)
    of_labels = tuple(prompts_for(label_names()))  # clips have few prompts of their own to be wrong with
    words = replace(words, prompts={**words.prompts, "train": words.prompts["train"] + of_labels})
    examples = Examples(Sources(generated, footage), words, "train")
    mini_lm = MiniLm(archives)
    return RealClips(
        examples=examples,
        cut_outs=CutOuts(footage.folder),
        teacher=Teacher.open(archives),
        meanings=Meanings(mini_lm.embed, label_names()),
        common_words=mini_lm.common_words,
    )


def main() -> None:
    """Train, calibrate, save the model and its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, default=Path("runs/footage"))
    parser.add_argument("--generated", type=Path, default=Path("runs/generated"))
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    out, generated, footage = options.pop("out"), options.pop("generated"), Footage.open(options.pop("footage"))
    real_clips = open_real_clips(Generated.open(generated), footage)
    plan = Plan(**options)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # clips are collated in a forked worker

    model = initial_model(plan, real_clips, out / "start")
    curves = {name: curve for name, curve in lessons(model, plan, real_clips, out) if curve}
    model.settings = calibrate(model, plan, footage)
    model.backbone.to(torch.bfloat16)
    model.save_pretrained(out / "model")
    record = {"plan": asdict(plan), "environment": environment(), "curves": curves}
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"grown: {out / 'model'}")


if __name__ == "__main__":
    main()
