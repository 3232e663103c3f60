"""What learning to write chains is told (stage 0). Knows settings; knows nothing of models or data."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from descore.training.checked import Checked
from descore.training.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainableConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig(Checked):
    """Next-token training on written chains."""

    model: ModelConfig
    """What learns."""
    data: DataConfig
    """From what."""
    trainable: TrainableConfig = field(default_factory=TrainableConfig)
    """Which parts of it."""
    optim: OptimConfig
    """How."""
    run: RunConfig
    """Where to."""

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """Evaluations need a table."""
        if self.run.eval_steps and self.data.eval is None:
            yield "run.eval_steps", "needs data.eval, a table to evaluate on"
