"""What dual-objective reinforcement learning is told (DESIGN 3, stage 2): groups of settings, each field with its unit.

    model, data, trainable, run   as in the stages before
    rollout     how chains are sampled
    rewards     what a chain is worth
    policy      how chains are learned from
    loss        what is asked of the rewards at the query behind them

Where TRL's GRPO trainer has an option, it has the same name here. Knows settings; knows nothing of models or data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from descore.training.config import (
    ChainSource,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimConfig,
    PairTrainableConfig,
    RunConfig,
)
from descore.training.config_model import ABOVE_ONE, BELOW_ONE, NOT_EMPTY, NOT_NEGATIVE, POSITIVE, Checked, Rule
from descore.training.rl.grpo import LossType

Opponents = Literal["matched", "all"]

_TWO_AT_LEAST = Rule("must be 2 or more", lambda x: x >= 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RlDataConfig(DataConfig):
    """Pairs with the marks that their chains should come to, and how their clips are read."""

    train: Path
    """Table (CSV, JSON Lines, JSON or Parquet) with columns prompt, video_a, video_b, preference (a, b or tie) or a
    preference.NAME for each dimension; and marks_a, marks_b: pairs without marks train the rewards alone."""
    eval: Path | None = None
    """A table of the same form that nothing is trained on."""
    calibration: Path | None = None
    """A table of the same form whose clips give the reward's mean and deviation. null: the eval table; without either,
    the trained model has no standardized score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig(Checked):
    """How chains are sampled: on-policy, by the weights that the update then changes."""

    num_generations: Annotated[int, _TWO_AT_LEAST] = 8
    """Chains for each clip: a group, whose mean a chain's rollout reward is held against."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Of sampling, and of the probabilities that are learned."""
    max_completion_length: Annotated[int, POSITIVE] | None = None
    """Tokens that a chain may have before its end of turn is forced. null: as the model has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardsConfig(Checked):
    """What a chain is worth: the sum of its parts, each times its weight."""

    quality: Annotated[float, NOT_NEGATIVE] = 0.7
    """Weight of the share of marks that equal the reference marks."""
    format: Annotated[float, NOT_NEGATIVE] = 0.1
    """Weight of an answer that can be read: 0 or 1."""
    length: Annotated[float, NOT_NEGATIVE] = 0.2
    """Weight of the chain's length, from 0 to 1."""
    length_none_below: Annotated[int, NOT_NEGATIVE] = 500
    """Tokens below which a chain's length is worth 0."""
    length_full_from: Annotated[int, POSITIVE] = 2000
    """Tokens from which it is worth 1; in between it rises evenly."""
    correctness: Annotated[float, NOT_NEGATIVE] = 0.5
    """Weight of overall scores in people's order. Of the generative paradigm alone."""
    function: Annotated[str, NOT_EMPTY] | None = None
    """A part of your own, as module:function: called with the chain's text, the prompt and the reference marks (or
    None), it returns a number."""
    function_weight: float = 1.0
    """Weight of that part."""

    @property
    def weights(self) -> dict[str, float]:
        """By part, its weight."""
        parts = ("quality", "format", "length", "correctness")
        return {**{part: getattr(self, part) for part in parts}, "function": self.function_weight}

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """A length to rise along; a function by its whole name."""
        if self.length_full_from <= self.length_none_below:
            yield "length_full_from", f"must be above length_none_below ({self.length_none_below})"
        if self.function is not None and not all(self.function.partition(":")):
            yield "function", f"expected module:function, found {self.function!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig(Checked):
    """How chains are learned from: group-relative advantages (GRPO, Shao et al. 2024, arXiv 2402.03300)."""

    epsilon: Annotated[float, POSITIVE] = 0.2
    """A token's probability ratio has no more gradient below 1 - epsilon; nor above 1 + epsilon."""
    epsilon_high: Annotated[float, POSITIVE] | None = None
    """Another bound above (Yu et al. 2025, arXiv 2503.14476, take 0.28). null: epsilon."""
    loss_type: LossType = "per_token"
    """The mean is over all tokens (TRL's dapo), over chains of their means (grpo), or over chains as if each had
    max_completion_length tokens (dr_grpo)."""
    scale_rewards: Literal["group", "none"] = "group"
    """group: advantages are divided by the group's deviation. none: only its mean is taken off (Liu et al. 2025, arXiv
    2503.20783)."""
    mask_truncated_completions: bool = True
    """Chains that reached the limit are no part of their group, and nothing is learned from them but the reward."""
    num_iterations: Annotated[int, POSITIVE] = 1
    """Updates from one rollout. From the second on, ratios are to the probabilities before the first."""
    kl_coef: Annotated[float, NOT_NEGATIVE] = 1e-5
    """Weight of the KL divergence (k3) from the model that the run starts from; TRL's beta. 0: it is measured alone."""
    measure_start: bool = True
    """Measure that divergence, and how far rewards drift, also where kl_coef is 0. false: it saves a forward of the
    start over each rollout and, where a part of the backbone learns in full, a copy of the model."""
    token_budget: Annotated[int, POSITIVE] | None = None
    """Tokens that one forward of the update reads: a longer group is split, to the same gradient. null: all chains of
    a rollout at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlLossConfig(Checked):
    """What is asked of the rewards at the query behind the sampled chains. The generative paradigm has none."""

    bt_weight: Annotated[float, NOT_NEGATIVE] = 5e-3
    """Weight of the Bradley-Terry loss beside the policy's."""
    kind: Literal["bradley-terry", "ties"] = "bradley-terry"
    """bradley-terry: decided pairs in the right order. ties: ties too have a probability (Rao & Kupper 1967)."""
    k: Annotated[float, ABOVE_ONE] = 5.0
    """For ties: the ratio of strengths up to which a pair is rather a tie."""
    opponents: Opponents = "matched"
    """matched: the g-th chain of a is held against the g-th of b. all: against each chain of b. So it is for the
    generative paradigm's correctness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlOptimConfig(OptimConfig):
    """AdamW. Exactly one of `epochs` and `steps`."""

    learning_rate: Annotated[float, POSITIVE] = 1e-6
    """Peak, for every part that names none of its own. 1e-6 is the authors' for 8 billion parameters."""
    warmup: Annotated[float, BELOW_ONE] = 0.05
    """Share of all updates in which the learning rate rises. The first of n has 1/n of the peak: a rollout is too dear
    for an update at 0."""
    epochs: Annotated[float, POSITIVE] | None = None
    """Passes over the table."""
    steps: Annotated[int, POSITIVE] | None = None
    """Rollouts; each is learned from num_iterations times."""
    batch_size: Annotated[int, POSITIVE] = 1
    """Pairs whose chains are written side by side, in each process."""
    accumulate: Annotated[int, POSITIVE] = 1
    """Such batches that make one update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlEvaluateConfig(EvaluateConfig):
    """How held-out pairs are judged."""

    ways: Annotated[tuple[ChainSource, ...], NOT_EMPTY] = ("written",)
    """With chains that the model writes itself, with the table's, without any. The generative paradigm has but the
    first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlRunConfig(RunConfig):
    """Where the run is written, and how often."""

    save_steps: Annotated[int, POSITIVE] = 200
    """Rollouts between checkpoints; there is always one at the end."""
    log_steps: Annotated[int, POSITIVE] = 1
    """Rollouts between lines of metrics.jsonl."""
    eval_steps: Annotated[int, POSITIVE] | None = None
    """Rollouts between evaluations. null: one at the end, if there is an eval table."""
    shown_pairs: Annotated[int, NOT_NEGATIVE] = 1
    """Pairs of a rollout, with each line of metrics, whose chains are kept in chains.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlConfig(Checked):
    """Learning to think from rollouts, and to score at the same time (DESIGN 3, stage 2)."""

    paradigm: Literal["descore", "generative"] = "descore"
    """descore: the reward is the head's, at the query behind the chain. generative: it is the chain's overall score;
    there is no head and no Bradley-Terry loss, and a chain is worth more if scores are in people's order."""
    model: ModelConfig
    """What learns."""
    data: RlDataConfig
    """From what."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """How chains are sampled."""
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    """What they are worth."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """How they are learned from."""
    loss: RlLossConfig = field(default_factory=RlLossConfig)
    """What is asked of the rewards."""
    trainable: PairTrainableConfig = field(default_factory=PairTrainableConfig)
    """Which parts of the model learn."""
    optim: RlOptimConfig
    """How long and along which learning rate."""
    evaluate: RlEvaluateConfig = field(default_factory=RlEvaluateConfig)
    """How it is judged."""
    run: RlRunConfig
    """Where to."""

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """A start that scores, chains whose probability is the model's own, and evaluations that have a table."""
        if self.paradigm == "descore" and self.model.checkpoint is None:
            yield "model.checkpoint", "needed: a cold-started model whose head goes on"
        if self.trainable.lora.dropout:
            yield "trainable.lora.dropout", "must be 0: a chain's probability is that of the model which wrote it"
        if self.run.eval_steps and self.data.eval is None:
            yield "run.eval_steps", "needs data.eval, a table to evaluate on"
        if self.paradigm == "generative" and self.evaluate.ways != ("written",):
            yield "evaluate.ways", "expected [written]: a generative model has no score without a chain of its own"
        if self.paradigm == "generative" and set(self.trainable.backbone_modes.values()) == {"frozen"}:
            yield (
                "trainable.language_model.mode",
                "is frozen as all parts are; the generative paradigm learns nothing else",
            )
