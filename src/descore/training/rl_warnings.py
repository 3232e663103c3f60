"""What a run of stage 2 is warned of before it begins: settings that work against each other, and a table that teaches
chains or rewards nothing.

In: settings, a table. Out: a warning in one line for each that somebody should look at. Knows settings and columns;
knows nothing of models or steps."""

import warnings
from collections.abc import Sequence

import pyarrow.compute as pc

from descore.errors import DescoreWarning
from descore.training.pair_table import PairTable
from descore.training.rl_config import RlConfig


def warn_of_lengths(config: RlConfig, *, limit: int, served: int) -> None:
    """Where the limit of a rollout's chains leaves nothing of the length reward, or not all of it; where it is above
    what the trained model may write.

    limit: tokens of a chain in a rollout. served: tokens of a chain of the trained model."""
    rewards = config.rewards
    if rewards.length and limit <= rewards.length_none_below:
        _warn(
            f"rewards.length is never paid: chains are cut off at {limit:,} tokens, it is 0 up to "
            f"{rewards.length_none_below:,}; raise rollout.max_completion_length or lower rewards.length_none_below"
        )
    elif rewards.length and limit < rewards.length_full_from:
        _warn(
            f"rewards.length is never paid in full: chains are cut off at {limit:,} tokens, it is 1 from "
            f"{rewards.length_full_from:,}; raise rollout.max_completion_length or lower rewards.length_full_from"
        )
    if limit > served:
        _warn(
            f"chains of up to {limit:,} tokens are learned, the trained model may write {served:,}; raise "
            "model.max_chain_tokens"
        )


def warn_of_table(config: RlConfig, pairs: PairTable) -> None:
    """Where no pair has what chains, or what rewards, are to learn from."""
    marked = _has_any(pairs, ["marks_a", "marks_b"])
    decided, named = _is_decided(pairs), f"{pairs.table}: none of {len(pairs):,} pairs"
    # A generative model's chains are told apart by people's order too; every table has a label at least.
    if config.paradigm == "descore" and not marked:
        _warn(f"{named} has marks, so the policy learns from none of its chains; give marks_a and marks_b")
    if _learns_pairs(config) and config.loss.kind == "bradley-terry" and not decided:
        _warn(
            f"{named} is decided, so rewards learn from none of them; give an a or b as preference, or loss.kind=ties"
        )


def _learns_pairs(config: RlConfig) -> bool:
    return config.paradigm == "descore" and config.loss.bt_weight > 0


def _is_decided(pairs: PairTable) -> bool:
    """Whether any pair is, in any dimension."""
    labels = (pairs.rows.column(f"preference.{name}") for name in pairs.dimensions)
    return any(pc.any(pc.not_equal(column, 0)).as_py() for column in labels)


def _has_any(pairs: PairTable, names: Sequence[str]) -> bool:
    return any(pairs.rows.column(name).null_count < len(pairs) for name in names)


def _warn(said: str) -> None:
    warnings.warn(said, DescoreWarning, stacklevel=4)
