"""Judges that read two clips of one prompt in one turn, and write which of them is better, as UnifiedReward-Think does.

In: a generative judge whose answers have that form, and two clips. Out: completions for each, whose reward is 1 where
the chain prefers that clip, -1 where it prefers the other, and 0 where it finds both equally good. Both orders are
judged, so that the place of a clip cancels out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from descore.errors import ConfigError, VideoError
from descore.model.chat import find_too_long
from descore.model.generation import think_and_score
from descore.model.modeling import DescoreModel
from descore.types import Clip, Completion, EngineOutput


def complete_pair(
    model: DescoreModel,
    clips: Sequence[Clip],
    prompts: Sequence[str],
    *,
    limit: int,
    room: int,
    name: str,
    seed: int = 0,
    **params: Any,  # noqa: ANN401  # of `think_and_score`
) -> list[EngineOutput | VideoError]:
    """An output for each of the two clips, with the chains of both orders. room: tokens that the model reads in all.

    ConfigError unless there are two clips of one prompt, or for a backbone that reads one video."""
    if len(clips) != 2 or prompts[0] != prompts[1]:
        raise ConfigError(f"{name}: judges two clips of one prompt at a time, found {len(clips)}; use compare")
    inputs = model.chat.lay_out_pairs([(clips[0], clips[1]), (clips[1], clips[0])], prompts)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    if faults := find_too_long(clips, lengths, limit=limit, room=room, name=name):
        fault = next(iter(faults.values()))
        return [fault, fault]
    placed = {key: value.to(model.device) for key, value in inputs.items()}
    in_order, swapped = think_and_score(model, placed, limit=limit, seeds=[seed, seed], **params)
    each = [[*in_order, *map(_opposite, swapped)], [*map(_opposite, in_order), *swapped]]
    return [EngineOutput(prompt_tokens=lengths[0], completions=completions) for completions in each]


def _opposite(completion: Completion) -> Completion:
    """The same chain, from the other clip's side."""
    return replace(completion, rewards={name: 0.0 - reward for name, reward in completion.rewards.items()})
