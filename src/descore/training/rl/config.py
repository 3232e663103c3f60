"""What dual-objective reinforcement learning is told (DESIGN 3, stage 2): groups of settings, each field with its unit.

    model, data, trainable, run   as in the stages before
    rollout     how chains are sampled
    rewards     what a chain is worth
    policy      how chains are learned from
    loss        what is asked of the rewards at the query behind them

Where TRL's GRPO trainer has an option, it has the same name here. Knows settings; knows nothing of models or data."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from descore.config_model import AboveOne, BelowOne, ConfigModel, PathText
from descore.training.config import (
    ChainSources,
    DataConfig,
    EvaluateConfig,
    OptimConfig,
    PairTrainableConfig,
    RunConfig,
    TrainingConfig,
)

LossType = Literal["dapo", "grpo", "dr_grpo"]
"""Over what the policy's objective is averaged."""
ScaleRewards = Literal["group", "none"]
"""What a chain's distance from the mean is divided by: the deviation of its group, or nothing."""
Opponents = Literal["matched", "all"]


class RlDataConfig(DataConfig):
    """Pairs with the marks that their chains should come to, and how their clips are read."""

    train: PathText
    """Table (CSV, JSON Lines, JSON or Parquet) with columns prompt, video_a, video_b, preference (a, b or tie) or a
    preference.NAME for each dimension; and marks_a, marks_b: pairs without marks train the rewards alone."""
    calibration: PathText | None = None
    """A table of the same form whose clips give the reward's mean and deviation. null: the eval table; without either,
    the trained model has no standardized score."""


class RolloutConfig(ConfigModel):
    """How chains are sampled: on-policy, by the weights that the update then changes."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    """Chains for each clip: a group, whose mean a chain's rollout reward is held against."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and of the probabilities that are learned."""
    max_completion_length: PositiveInt | None = None
    """Tokens that a chain may have before its end of turn is forced. null: as the model has it."""


class RewardsConfig(ConfigModel):
    """What a chain is worth: the sum of its parts, each times its weight."""

    quality: NonNegativeFloat = 0.7
    """Weight of the share of marks that equal the reference marks."""
    format: NonNegativeFloat = 0.1
    """Weight of an answer that can be read: 0 or 1."""
    length: NonNegativeFloat = 0.2
    """Weight of the chain's length, from 0 to 1."""
    length_none_below: NonNegativeInt = 500
    """Tokens below which a chain's length is worth 0."""
    length_full_from: PositiveInt = 2000
    """Tokens from which it is worth 1; in between it rises evenly."""
    correctness: NonNegativeFloat = 0.5
    """Weight of overall scores in people's order. Of the generative paradigm alone."""
    function: Annotated[str, Field(min_length=1)] | None = None
    """A part of your own, as module:function: called with the chain's text, the prompt and the reference marks (or
    None), it returns a number."""
    function_weight: float = 1.0
    """Weight of that part."""

    @property
    def weights(self) -> dict[str, float]:
        """By part, its weight."""
        parts = ("quality", "format", "length", "correctness")
        return {**{part: getattr(self, part) for part in parts}, "function": self.function_weight}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A length to rise along; a function by its whole name."""
        if self.length_full_from <= self.length_none_below:
            yield "length_full_from", f"must be above length_none_below ({self.length_none_below})"
        if self.function is not None and not all(self.function.partition(":")):
            yield "function", f"expected module:function, found {self.function!r}"


class PolicyConfig(ConfigModel):
    """How chains are learned from: group-relative advantages (GRPO, Shao et al. 2024, arXiv 2402.03300)."""

    epsilon: PositiveFloat = 0.2
    """A token's probability ratio has no more gradient below 1 - epsilon; nor above 1 + epsilon."""
    epsilon_high: PositiveFloat | None = None
    """Another bound above (Yu et al. 2025, arXiv 2503.14476, take 0.28). null: epsilon."""
    loss_type: LossType = "dapo"
    """dapo: mean over all tokens of the update. grpo: mean over chains of each chain's mean over its tokens. dr_grpo:
    sum over tokens, divided by the chains and by max_completion_length. As in TRL, except that only counted chains are
    in the divisor: where truncated chains are masked, TRL's divisor still holds them. The loss is TRL's times (tokens
    of all chains / tokens of counted chains) for dapo, and times (all chains / counted chains) for grpo and dr_grpo."""
    scale_rewards: ScaleRewards = "group"
    """group: advantages are divided by the group's deviation. none: only its mean is taken off (Liu et al. 2025, arXiv
    2503.20783)."""
    mask_truncated_completions: bool = True
    """Chains that reached the limit are no part of their group, and nothing is learned from them but the reward."""
    num_iterations: PositiveInt = 1
    """Updates from one rollout. From the second on, ratios are to the probabilities before the first."""
    beta: NonNegativeFloat = 1e-5
    """Weight of the KL divergence (k3) from the model that the run starts from. 0: it is logged alone, see log_kl."""
    log_kl: bool = True
    """Log that divergence, and how far rewards drift, also where beta is 0. false: it saves a forward of the start over
    each rollout and, where a part of the backbone learns in full, a copy of the model."""
    token_budget: PositiveInt | None = None
    """Tokens that one forward of the update reads: a longer group is split, to the same gradient. null: all chains of
    a rollout at once."""


class RlLossConfig(ConfigModel):
    """What is asked of the rewards at the query behind the sampled chains. The generative paradigm has none."""

    bt_weight: NonNegativeFloat = 5e-3
    """Weight of the Bradley-Terry loss beside the policy's."""
    kind: Literal["bradley-terry", "ties"] = "bradley-terry"
    """bradley-terry: decided pairs in the right order. ties: ties too have a probability (Rao & Kupper 1967)."""
    k: AboveOne = 5.0
    """For ties: the ratio of strengths up to which a pair is rather a tie."""
    opponents: Opponents = "matched"
    """matched: the g-th chain of a is held against the g-th of b. all: against each chain of b. So it is for the
    generative paradigm's correctness."""


class RlOptimConfig(OptimConfig):
    """AdamW. Exactly one of `num_train_epochs` and `max_steps`. The names are transformers'."""

    learning_rate: PositiveFloat = 1e-6
    """Peak, for every part that names none of its own. 1e-6 is the authors' for 8 billion parameters."""
    warmup_ratio: BelowOne = 0.05
    """Share of all updates in which the learning rate rises. The first of n has 1/n of the peak: a rollout is too dear
    for an update at 0."""
    num_train_epochs: PositiveFloat | None = None
    """Passes over the table."""
    max_steps: PositiveInt | None = None
    """Rollouts; each is learned from num_iterations times."""
    per_device_train_batch_size: PositiveInt = 1
    """Pairs whose chains are written side by side, in each process."""
    gradient_accumulation_steps: PositiveInt = 1
    """Such batches that make one update."""


class RlEvaluateConfig(EvaluateConfig):
    """How held-out pairs are judged."""

    chain_sources: ChainSources = ("generated",)
    """generated: with chains that the model writes itself, the only source of the generative paradigm. reference: with
    the table's chains, where a pair has them. none: without chains."""


class RlRunConfig(RunConfig):
    """Where the run is written, and how often."""

    save_steps: PositiveInt = 200
    """Rollouts between checkpoints; there is always one at the end."""
    logging_steps: PositiveInt = 1
    """Rollouts between lines of metrics.jsonl."""
    eval_steps: PositiveInt | None = None
    """Rollouts between evaluations. null: one at the end, if there is an eval table."""
    num_completions_to_print: NonNegativeInt | None = None
    """Completions of a rollout, with each line of metrics, that are kept in chains.jsonl: pair by pair, those of a
    before those of b. null: those of one pair, twice num_generations."""


class RlConfig(TrainingConfig):
    """Learning to think from rollouts, and to score at the same time (DESIGN 3, stage 2)."""

    paradigm: Literal["descore", "generative"] = "descore"
    """descore: the reward is the head's, at the query behind the chain. generative: it is the chain's overall score;
    there is no head and no Bradley-Terry loss, and a chain is worth more if scores are in people's order."""
    data: RlDataConfig
    rollout: RolloutConfig = RolloutConfig()
    """How chains are sampled."""
    rewards: RewardsConfig = RewardsConfig()
    """What they are worth."""
    policy: PolicyConfig = PolicyConfig()
    """How they are learned from."""
    loss: RlLossConfig = RlLossConfig()
    """What is asked of the rewards."""
    trainable: PairTrainableConfig = PairTrainableConfig()
    optim: RlOptimConfig
    evaluate: RlEvaluateConfig = RlEvaluateConfig()
    """How it is judged."""
    run: RlRunConfig

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A start that scores, chains whose probability is the model's own, and evaluations that have a table."""
        yield from super().conflicts()
        if self.paradigm == "descore" and self.model.checkpoint is None:
            yield "model.checkpoint", "needed: a cold-started model whose head goes on"
        if self.trainable.lora.lora_dropout:
            yield "trainable.lora.lora_dropout", "must be 0: a chain's probability is that of the model which wrote it"
        if self.paradigm == "generative" and self.evaluate.chain_sources != ("generated",):
            yield (
                "evaluate.chain_sources",
                "expected [generated]: a generative model has no score without a chain of its own",
            )
        if self.paradigm == "generative" and set(self.trainable.backbone_modes.values()) == {"frozen"}:
            yield (
                "trainable.language_model.mode",
                "is frozen as all parts are; the generative paradigm learns nothing else",
            )
