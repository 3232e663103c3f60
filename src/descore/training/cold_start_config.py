"""What learning to score pairs is told (DESIGN 3, stage 1): the groups of every stage, and

    dimensions  what the head has a row for
    loss        what is asked of the rewards

Knows settings; knows nothing of models or data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from descore.training.checked import ABOVE_ONE, NOT_EMPTY, NOT_NEGATIVE, POSITIVE, Checked
from descore.training.config import (
    EvaluateConfig,
    ModelConfig,
    OptimConfig,
    PairDataConfig,
    PairTrainableConfig,
    RunConfig,
)

LossKind = Literal["bradley-terry", "ties", "margin", "regression"]
"""By which of descore.maths.losses the rewards learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig(Checked):
    """What is asked of the rewards, and of the chains beside them."""

    kind: LossKind = "bradley-terry"
    """bradley-terry: decided pairs in the right order (Bradley & Terry 1952). ties: ties too have a probability (Rao &
    Kupper 1967). margin: ordered with a distance that grows with that of the ratings. regression: rewards are the
    ratings, standardized (mean squared error)."""
    k: Annotated[float, ABOVE_ONE] = 5.0
    """For ties: the ratio of strengths up to which a pair is rather a tie. The default is VideoAlign's (arXiv
    2501.13918)."""
    margin_scale: Annotated[float, POSITIVE] = 1.0
    """For margin: reward per point of rating."""
    chain_weight: Annotated[float, NOT_NEGATIVE] = 0.0
    """Of the next-token loss on chains that did not drop out, averaged over its own tokens. 0: chains are read, not
    learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStartConfig(Checked):
    """Learning to score pairs: the discriminative cold start (DESIGN 3, stage 1)."""

    model: ModelConfig
    """What learns."""
    data: PairDataConfig
    """From what."""
    dimensions: Annotated[tuple[str, ...], NOT_EMPTY] = ("overall",)
    """What the head has a row for: NAME of each column preference.NAME; overall is the column preference."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is asked of the rewards."""
    trainable: PairTrainableConfig = field(default_factory=PairTrainableConfig)
    """Which parts of the model learn."""
    optim: OptimConfig
    """How."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """How it is judged."""
    run: RunConfig
    """Where to."""

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """Evaluations need a table, names are unlike, and what learns needs something to learn from."""
        if self.run.eval_steps and self.data.eval is None:
            yield "run.eval_steps", "needs data.eval, a table to evaluate on"
        if len(set(self.dimensions)) < len(self.dimensions):
            yield "dimensions", f"names one twice: {list(self.dimensions)}"
        if self.loss.chain_weight and self.data.chain_drop == 1:
            yield "loss.chain_weight", "needs chains to learn from; data.chain_drop is 1, all drop out"
