"""Settings of the stages sft and cold-start, in the groups that all stages share:

    model       what is trained, and in which precision
    data        tables, and how their clips are read
    trainable   which parts learn, and how fast
    optim       optimizer, schedule, length and batch size
    evaluate    how held-out pairs are judged
    run         the run directory, and how often something is written to it

Options of transformers' TrainingArguments and peft's LoraConfig have their names."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from descore.config_model import AboveOne, BelowOne, ConfigModel, Names, PathText, UnitInterval
from descore.video.sampling import VideoSampling

Mode = Literal["frozen", "lora", "full"]
BACKBONE_PARTS = ("vision_tower", "merger", "language_model")
"""The parts of a backbone that learn or do not."""
ROWS = ("query", "head")
"""What a reward model has beside its backbone."""

Schedule = Literal["constant_with_warmup", "cosine", "linear"]
ChainSource = Literal["reference", "generated", "none"]
"""Which chain stands before the query: the table's, one that the model writes, or none."""
ChainSources = Annotated[tuple[ChainSource, ...], Field(strict=False, min_length=1)]


class ModelConfig(ConfigModel):
    """The model that is trained. Exactly one of `backbone` and `checkpoint`."""

    backbone: str | None = None
    """Folder or hub id of a plain backbone; a new reward model starts from it."""
    checkpoint: str | None = None
    """Folder, hub id or bundled name of a descore checkpoint to go on with. An adapter in it is folded into its
    weights first."""
    rubric: PathText | None = None
    """Text file of the judging text, with {prompt} once. null: the checkpoint's, or the built-in one for a backbone."""
    max_chain_tokens: PositiveInt | None = None
    """Tokens that a chain may have when the trained model writes one. null: as the checkpoint says, 1,024 for a
    backbone."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the forward, and of all weights that do not learn. Weights that learn are always float32."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Hold the language model's linear layers in so many bits while adapters learn beside them (QLoRA, Dettmers et al.
    2023, arXiv 2305.14314), by bitsandbytes on a GPU. The trained model has them as they were then, in `precision`.
    null: they are held in `precision`."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass: less memory, about a third more time."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Exactly one of backbone and checkpoint."""
        if (self.backbone is None) == (self.checkpoint is None):
            found = "neither" if self.backbone is None else "both"
            yield "backbone", f"or checkpoint: give exactly one of them, found {found}"


class DataConfig(ConfigModel):
    """Tables of examples, and how their clips are read."""

    train: PathText
    """Table (CSV, JSON Lines, JSON or Parquet) with columns prompt, video, chain; or prompt, video_a, chain_a, video_b,
    chain_b, which gives two examples a row."""
    eval: PathText | None = None
    """A table of the same form that nothing is trained on."""
    sampling: VideoSampling | None = None
    """How a video becomes a clip; kept in the trained checkpoint. null: as the checkpoint says."""
    dataloader_num_workers: NonNegativeInt = 2
    """Processes that read clips ahead of the step; 0 reads them in the step itself."""
    dataloader_prefetch_factor: PositiveInt = 4
    """Batches that each worker reads ahead."""
    max_unreadable: UnitInterval = 0.01
    """Share of a table's examples whose video may be unreadable; the run stops when there are more."""


class PairDataConfig(DataConfig):
    """Tables of pairs, and how their clips and chains are read."""

    train: PathText
    """Table (CSV, JSON Lines, JSON or Parquet) with columns prompt, video_a, video_b, preference (a, b or tie) or a
    preference.NAME for each dimension; and where known chain_a, chain_b, rating_a, rating_b (or rating_a.NAME ...)."""
    calibration: PathText | None = None
    """A table of the same form whose clips give the reward's mean and deviation. null: the eval table; without either,
    the trained model has no standardized score."""
    chain_drop: UnitInterval = 0.5
    """The random mask: probability with which both chains of a pair drop out, drawn from seed, epoch and pair. 1 is the
    discriminative baseline, which never sees a chain; the trained model then scores at once."""
    group_by_length: bool = False
    """Let pairs with chains of about one length share an update: less padding, an order that is less random."""


class PartConfig(ConfigModel):
    """Whether and how fast one part learns."""

    mode: Mode = "frozen"
    """frozen: nothing changes. lora: low-rank adapters beside its linear layers. full: all its weights."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of this part. null: `optim.learning_rate`."""


class RowConfig(ConfigModel):
    """Whether and how fast the query or the head learns."""

    mode: Literal["frozen", "full"] = "full"
    """frozen: nothing changes. full: all of it learns; of the embedding, only the query's row."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. null: `optim.learning_rate`."""


class LoraConfig(ConfigModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), for every part whose mode is lora. The names are
    peft's."""

    r: PositiveInt = 64
    """Rank."""
    lora_alpha: PositiveFloat = 128
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: BelowOne = 0.0
    """Share of an adapter's inputs that are dropped in training."""
    target_modules: Names | None = None
    """Last names of the linear layers that get one, such as q_proj. null: the family's own choice, all of a layer's
    attention and feed-forward projections."""


class TrainableConfig(ConfigModel):
    """Which parts of the backbone learn. Training on chains leaves the query and the head as they are."""

    parts: ClassVar[tuple[str, ...]] = BACKBONE_PARTS
    """Names of the parts that have a mode and a learning rate."""

    vision_tower: PartConfig = PartConfig()
    """The vision tower, which turns frames into features."""
    merger: PartConfig = PartConfig()
    """The merger, which turns features into tokens of the language model."""
    language_model: PartConfig = PartConfig(mode="lora")
    """The language model: embedding, layers and output."""
    lora: LoraConfig = LoraConfig()
    """Adapters of the parts whose mode is lora."""

    @property
    def modes(self) -> dict[str, Mode]:
        """Mode of each part."""
        return {part: getattr(self, part).mode for part in self.parts}

    @property
    def backbone_modes(self) -> dict[str, Mode]:
        """Mode of each part of the backbone."""
        return {part: self.modes[part] for part in BACKBONE_PARTS}

    @property
    def rates(self) -> dict[str, float | None]:
        """Learning rate of each part; None where it has none of its own."""
        return {part: getattr(self, part).learning_rate for part in self.parts}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """At least one part learns."""
        if set(self.modes.values()) == {"frozen"}:
            yield "language_model.mode", "is frozen as all parts are; let at least one learn (lora or full)"


class PairTrainableConfig(TrainableConfig):
    """Which parts of the reward model learn."""

    parts: ClassVar[tuple[str, ...]] = (*BACKBONE_PARTS, *ROWS)

    query: RowConfig = RowConfig()
    """The learnable token behind the chain."""
    head: RowConfig = RowConfig()
    """The head, which maps the hidden state at the query to rewards."""


class OptimConfig(ConfigModel):
    """AdamW (Loshchilov & Hutter 2019). Exactly one of `num_train_epochs` and `max_steps`. The names are
    transformers'."""

    learning_rate: PositiveFloat = 2e-6
    """Peak learning rate of every part that has none of its own. 2e-6 is the authors' for LoRA on 8 billion
    parameters."""
    lr_scheduler_type: Schedule = "constant_with_warmup"
    """After warm-up the learning rate stays (constant_with_warmup), or falls to 0 at the end (cosine, linear)."""
    warmup_ratio: BelowOne = 0.05
    """Share of all updates over which the learning rate rises from 0."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of matrices; biases and norms have none."""
    betas: Annotated[tuple[BelowOne, BelowOne], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    max_grad_norm: PositiveFloat = 1.0
    """Norm that longer gradients are scaled down to."""
    num_train_epochs: PositiveFloat | None = None
    """Passes over the table."""
    max_steps: PositiveInt | None = None
    """Updates of the weights."""
    per_device_train_batch_size: PositiveInt = 1
    """Examples in one forward, in each process."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forwards whose gradients make one update. The loss is averaged over the tokens or pairs of all of them."""
    seed: NonNegativeInt = 0
    """Seed of the order of examples, of dropout, and of weights that are initialized at random."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Exactly one of num_train_epochs and max_steps."""
        if (self.num_train_epochs is None) == (self.max_steps is None):
            found = "neither" if self.max_steps is None else "both"
            yield "num_train_epochs", f"or max_steps: give exactly one of them, found {found}"


class RunConfig(ConfigModel):
    """Where the run is written, and how often."""

    out: PathText
    """The run directory. One that holds a run of other settings is refused."""
    save_steps: PositiveInt = 200
    """Updates between checkpoints; there is always one at the end."""
    save_total_limit: PositiveInt = 2
    """Checkpoints that are kept."""
    logging_steps: PositiveInt = 10
    """Updates between lines of metrics.jsonl."""
    eval_steps: PositiveInt | None = None
    """Updates between evaluations. null: one at the end, if there is an eval table."""
    resume: bool = True
    """Go on from the last checkpoint in `out`, if there is one. false: refuse a directory with a run in it."""
    tensorboard: bool = False
    """Also write TensorBoard's event files, to `tensorboard` in the run directory (pip install
    '.[tensorboard]')."""
    merge: bool = False
    """Fold adapters into the weights of the trained model. false: they stay beside the weights, as adapters."""


WITHOUT_EFFECT = (
    "data.dataloader_num_workers",
    "data.dataloader_prefetch_factor",
    "run.out",
    "run.save_steps",
    "run.save_total_limit",
    "run.logging_steps",
    "run.eval_steps",
    "run.resume",
    "run.tensorboard",
    "run.num_completions_to_print",
    "policy.log_kl",
    "evaluate.chain_sources",
    "evaluate.generated_pairs",
)
"""Keys that may differ when a run is resumed: what is learned does not depend on them."""


class EvaluateConfig(ConfigModel):
    """How held-out pairs are judged."""

    chain_sources: ChainSources = ("reference", "generated", "none")
    """reference: with the table's chains, where a pair has them. generated: with chains that the model writes itself.
    none: without chains."""
    generated_pairs: PositiveInt | None = 200
    """Number of pairs, from the start of the table, for which the model writes chains, which is slow. null: all."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Each source once."""
        if len(set(self.chain_sources)) < len(self.chain_sources):
            yield "chain_sources", f"names one twice: {list(self.chain_sources)}"


class TrainingConfig(ConfigModel):
    """The groups that every stage has."""

    model: ModelConfig
    """The model that is trained."""
    data: DataConfig
    """Tables, and how their clips are read."""
    trainable: TrainableConfig = TrainableConfig()
    """Which parts of the model learn."""
    optim: OptimConfig
    """Optimizer, schedule, length and batch size."""
    run: RunConfig
    """The run directory, and how often something is written to it."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Evaluations need a table; quantized weights, adapters that stay beside them."""
        if self.run.eval_steps and self.data.eval is None:
            yield "run.eval_steps", "needs data.eval, a table to evaluate on"
        if self.model.quantization and self.trainable.backbone_modes["language_model"] == "full":
            yield "model.quantization", "holds weights that cannot learn; set trainable.language_model.mode to lora"
        if self.model.quantization and self.run.merge:
            yield "run.merge", "must be false with model.quantization: adapters are not folded into rounded weights"


class SftConfig(TrainingConfig):
    """Stage sft: next-token training on written chains."""


LossKind = Literal["bradley-terry", "ties", "margin", "regression"]
"""Name of a loss on rewards in descore.training.losses."""


class LossConfig(ConfigModel):
    """The loss on rewards, and the weight of the next-token loss beside it."""

    kind: LossKind = "bradley-terry"
    """bradley-terry: decided pairs in the right order (Bradley & Terry 1952). ties: ties too have a probability (Rao &
    Kupper 1967). margin: ordered with a distance that grows with that of the ratings. regression: rewards are the
    ratings, standardized (mean squared error)."""
    k: AboveOne = 5.0
    """For ties: the ratio of strengths up to which a pair is rather a tie. The default is VideoAlign's (arXiv
    2501.13918)."""
    margin_scale: PositiveFloat = 1.0
    """For margin: units of reward per point of rating."""
    chain_weight: NonNegativeFloat = 0.0
    """Weight of the next-token loss on chains that did not drop out, a mean over their tokens. 0: chains are read, not
    learned."""


class ColdStartConfig(TrainingConfig):
    """Stage cold-start: discriminative training on pairs (DESIGN 3, stage 1)."""

    data: PairDataConfig
    dimensions: Names = ("overall",)
    """Names of the rewards, one for each row of the head: NAME of each column preference.NAME; overall is the column
    preference."""
    loss: LossConfig = LossConfig()
    """The loss on rewards."""
    trainable: PairTrainableConfig = PairTrainableConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    """How held-out pairs are judged."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Evaluations need a table, names are unlike, and what learns needs something to learn from."""
        yield from super().conflicts()
        if len(set(self.dimensions)) < len(self.dimensions):
            yield "dimensions", f"names one twice: {list(self.dimensions)}"
        if self.loss.chain_weight and self.data.chain_drop == 1:
            yield "loss.chain_weight", "needs chains to learn from; data.chain_drop is 1, all drop out"
