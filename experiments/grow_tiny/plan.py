"""Sizes and rates of the lessons that make the bundled model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes and rates of the lessons: the defaults are those of the first of the bundled model's two runs."""

    start: str = ""
    """Model to continue from; empty: random weights."""
    first: int = 0
    """Number of the first clip and pair, beyond those that `start` has seen."""
    clips_before: int = 0
    """Number of clips that `start` has seen."""
    see_steps: int = 600
    """Updates of the eyes alone."""
    read_steps: int = 300
    """Updates on how near texts are to each other and to pictures."""
    read_batch: int = 128
    """Texts in an update of that, each over a picture."""
    look_steps: int = 220
    """Updates on descriptions."""
    judge_steps: int = 520
    """Updates on whole chains, every third of them without clips."""
    batch: int = 32
    """Clips in an update of see, look and judge."""
    learning_rate: float = 8e-4
    """AdamW's peak rate in see, and its rate in look and judge after `warmup_steps`: constant, falling at the end of
    judge."""
    matrix_learning_rate: float = 0.01
    """Muon's rate, likewise."""
    warmup_steps: int = 100
    judge_decay: float = 0.35
    """Last share of the judge lesson, over which the rates fall to `prefer_share` of them."""
    prefer_steps: int = 270
    """Updates on pairs."""
    pair_batch: int = 16
    """Pairs in an update: twice as many clips."""
    prefer_share: float = 0.35
    """Share of these rates at the peak of the last lesson, which decays to 0 along a cosine."""
    head_learning_rate: float = 2e-3
    """Peak rate of the query and the head, which start untrained."""
    chain_drop: float = 0.5
    """Probability of the random mask."""
    margin_scale: float = 2.0
    """Units of the reward by which a whole harm makes a clip worse, or another clip's prompt."""
    chain_weight: float = 1.0
    """Weight of the next-token loss beside Bradley-Terry."""
    calibration_clips: int = 256
    """Clips for the mean and deviation of the reward: half drawn, half real."""
    seed: int = 0
    """Seed of the weights."""
