"""Settings of the stage rl, dual-objective reinforcement learning (DESIGN 3, stage 2). Beside the groups of all stages:

    rollout     how chains are sampled
    rewards     the rule-based reward of a chain
    policy      the policy loss
    loss        the loss on the rewards at the query behind the chains

Options of TRL's GRPOConfig have its names."""

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
"""How the policy loss is averaged over tokens and chains."""
ScaleRewards = Literal["group", "none"]
"""Whether advantages are divided by the standard deviation of their group."""
LengthUnit = Literal["tokens", "characters"]
"""What the length reward counts."""
Opponents = Literal["matched", "all"]


class RlDataConfig(DataConfig):
    """Tables of pairs with the reference marks of their videos, and how their clips are read."""

    train: PathText
    """Table (CSV, JSON Lines, JSON or Parquet) with columns prompt, video_a, video_b, preference (a, b or tie) or a
    preference.NAME for each dimension; and marks_a, marks_b: pairs without marks train the rewards alone."""
    calibration: PathText | None = None
    """A table of the same form whose clips give the reward's mean and deviation. null: the eval table; without either,
    the trained model has no standardized score."""


class RolloutConfig(ConfigModel):
    """How chains are sampled: on-policy, with the weights that the update then changes."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    """Chains for each clip: a group. A chain's advantage is its rollout reward less the mean of its group."""
    temperature: PositiveFloat = 1.0
    """Temperature of sampling, and of the probabilities in the policy loss."""
    max_completion_length: PositiveInt | None = None
    """Tokens that a chain may have before its end of turn is forced. null: as the model has it."""


class RewardsConfig(ConfigModel):
    """The rollout reward of a chain: the sum of its parts, each times its weight."""

    quality: NonNegativeFloat = 0.7
    """Weight of quality: the share of marks that equal the reference marks."""
    format: NonNegativeFloat = 0.1
    """Weight of format: 1 if the answer can be parsed, else 0."""
    length: NonNegativeFloat = 0.2
    """Weight of length, which rises from 0 to 1."""
    length_unit: LengthUnit = "tokens"
    """What length counts: tokens of the chain, its end of turn included; or characters of its text, as the authors'
    code does."""
    length_none_below: NonNegativeInt = 500
    """Tokens or characters up to which length is 0."""
    length_full_from: PositiveInt = 2000
    """Tokens or characters from which length is 1; in between it rises linearly, or in steps."""
    length_steps: PositiveInt | None = None
    """Equal steps in which length rises from 0 to 1, each paid once it is reached in full. The authors' code has steps
    too; whether they are equal was not checked. null: it rises linearly."""
    correctness: NonNegativeFloat = 0.5
    """Weight of correctness: overall scores in the order of the preference. For the generative paradigm alone."""
    function: Annotated[str, Field(min_length=1)] | None = None
    """A part of your own, as module:function: called with the chain's text, the prompt and the reference marks (or
    None), it returns a number."""
    function_weight: float = 1.0
    """Weight of what the function returns."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each part."""
        parts = ("quality", "format", "length", "correctness")
        return {**{part: getattr(self, part) for part in parts}, "function": self.function_weight}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Bounds of length in order; a function with its module."""
        if self.length_full_from <= self.length_none_below:
            yield "length_full_from", f"must be above length_none_below ({self.length_none_below})"
        if self.function is not None and not all(self.function.partition(":")):
            yield "function", f"expected module:function, found {self.function!r}"


class PolicyConfig(ConfigModel):
    """The policy loss, with group-relative advantages (GRPO, Shao et al. 2024, arXiv 2402.03300)."""

    epsilon: PositiveFloat = 0.2
    """Bound of clipping: a token's probability ratio is clipped to 1 - epsilon and 1 + epsilon."""
    epsilon_high: PositiveFloat | None = None
    """Upper bound of clipping, if it is another (Yu et al. 2025, arXiv 2503.14476, take 0.28). null: epsilon."""
    dual_clip: AboveOne | None = None
    """Bound of the loss of a token with a negative advantage A: its objective is at least dual_clip · A (Ye et al.
    2020, arXiv 1912.09729). The authors' code has 3.0. null: no such bound."""
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
    """The loss on the rewards at the query behind the sampled chains. The generative paradigm has none."""

    bt_weight: NonNegativeFloat = 5e-3
    """Weight of the Bradley-Terry loss beside the policy loss."""
    kind: Literal["bradley-terry", "ties"] = "bradley-terry"
    """bradley-terry: decided pairs in the right order. ties: ties too have a probability (Rao & Kupper 1967)."""
    k: AboveOne = 5.0
    """For ties: the ratio of strengths up to which a pair is rather a tie."""
    opponents: Opponents = "matched"
    """matched: the g-th chain of a is held against the g-th of b. all: against each chain of b. The
    correctness of the generative paradigm compares the same pairs of chains."""


class RlOptimConfig(OptimConfig):
    """AdamW. Exactly one of `num_train_epochs` and `max_steps`. The names are transformers'."""

    learning_rate: PositiveFloat = 1e-6
    """Peak learning rate of every part that has none of its own. 1e-6 is the authors' for 8 billion parameters."""
    warmup_ratio: BelowOne = 0.05
    """Share of all updates over which the learning rate rises. The first of n has 1/n of the peak, not 0, which would
    waste its rollout."""
    num_train_epochs: PositiveFloat | None = None
    """Passes over the table."""
    max_steps: PositiveInt | None = None
    """Rollouts; each is learned from num_iterations times."""
    per_device_train_batch_size: PositiveInt = 1
    """Pairs whose chains are written side by side, in each process."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches that make one update."""


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
    """Stage rl: learn to write chains from rollouts, and to score at the same time (DESIGN 3, stage 2)."""

    paradigm: Literal["descore", "generative"] = "descore"
    """descore: the reward is the head's, at the query behind the chain. generative: it is the chain's overall score;
    there is no head and no Bradley-Terry loss, and a chain's rollout reward has the part correctness."""
    data: RlDataConfig
    rollout: RolloutConfig = RolloutConfig()
    """How chains are sampled."""
    rewards: RewardsConfig = RewardsConfig()
    """The rollout reward of a chain."""
    policy: PolicyConfig = PolicyConfig()
    """The policy loss."""
    loss: RlLossConfig = RlLossConfig()
    """The loss on rewards."""
    trainable: PairTrainableConfig = PairTrainableConfig()
    optim: RlOptimConfig
    evaluate: RlEvaluateConfig = RlEvaluateConfig()
    """How held-out pairs are judged."""
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
