"""What the card of a stage 2 model says of its chains: what they were worth in the end, and how far they are from the
start's.

In: the last line of metrics. Out: a section of Markdown. Knows words and numbers; knows nothing of models."""

from collections.abc import Mapping
from typing import Any

_ROWS = {
    "rollout_reward": "| what a chain is worth (rollout reward) | {rollout_reward:.3f} |",
    "quality": "| marks that equal the reference marks | {quality:.1%} |",
    "format": "| answers that can be read | {format:.1%} |",
    "chain_tokens": "| tokens of a chain | {chain_tokens:,.0f} |",
    "truncated_chains": "| chains cut off at the limit | {truncated_chains:,} of {chains:,} |",
    "kl": "| KL from the start, nats a token | {kl:.2g} |",
    "reward_drift": "| mean reward above what the start says of the same chains | {reward_drift:+.3f} |",
}
"""By metric, its line, where it is known."""


def how_chains_came_out(metrics: Mapping[str, Any]) -> str:
    """The section, with an empty line behind it. metrics: the last line on training."""
    rows = [row.format(**metrics) for name, row in _ROWS.items() if name in metrics]
    head = f"Means over the last rollouts on training pairs, up to step {metrics['step']:,}."
    return "\n".join(["## How its chains came out", "", head, "", "| | |", "|---|---|", *rows, "", ""])
