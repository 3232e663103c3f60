"""Scores from the probabilities of the tokens that a chain's numbers are, as VideoScore2 reads them.

In: a generative judge, prompts, and the chains that it wrote. Out: the same completions with these scores as rewards.
The whole sequences are read once more for it.

Shapes: B prompts, S chains of each, T tokens, D width, V vocabulary, N whole numbers of the range."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from descore.errors import ConfigError
from descore.model.chat import Chat, Inputs
from descore.model.modeling import DescoreModel
from descore.rubric import AnswerForm
from descore.types import Completion


@torch.inference_mode()
def soften(model: DescoreModel, prompts: Inputs, completions: list[list[Completion]]) -> list[list[Completion]]:
    """B lists of S completions whose rewards are the likeliest number times its share (`AnswerForm.read_out`). One that
    had no rewards has none; nor has one whose number is no single token of the range, with the reason as its flaw.
    Scores that are to be taken as they are written stay."""
    if model.chat.answer is None or model.chat.answer.read_out == "written":
        return completions
    ids_N = number_ids(model.chat)
    by_sample = [_soften(model, prompts, list(sample), ids_N) for sample in zip(*completions, strict=True)]
    return [list(row) for row in zip(*by_sample, strict=True)]


def number_ids(chat: Chat) -> Tensor:
    """The token (N) of each whole number of the range. ConfigError for a tokenizer that has none for one of them."""
    assert chat.answer is not None
    encoded = [chat.tokenizer(str(n), add_special_tokens=False)["input_ids"] for n in chat.answer.candidates]
    for number, ids in zip(chat.answer.candidates, encoded, strict=True):
        if len(ids) != 1:
            raise ConfigError(f"rubric: the tokenizer writes {number} as {len(ids)} tokens; expected one")
    return torch.tensor([ids[0] for ids in encoded])


def _soften(model: DescoreModel, prompts: Inputs, completions: list[Completion], ids_N: Tensor) -> list[Completion]:
    if not any(completion.rewards for completion in completions):
        return completions
    chains = [list(completion.token_ids) for completion in completions]
    hidden_BTD = model.hidden(model.chat.lay_out_chains(prompts, chains, query=False))
    # Rows are padded on the left, so a chain's tokens are the last ones. What is before a token says how likely it is.
    return [
        _with_soft_scores(model, completion, hidden_TD[-len(chain) - 1 : -1], ids_N)
        for completion, chain, hidden_TD in zip(completions, chains, hidden_BTD, strict=True)
    ]


def _with_soft_scores(model: DescoreModel, completion: Completion, before_TD: Tensor, ids_N: Tensor) -> Completion:
    """before_TD: the hidden state before each of the chain's tokens."""
    form, chain = model.chat.answer, list(completion.token_ids)
    if form is None or not completion.rewards:
        return completion
    rewards = {}
    for name, score in form.read(completion.text).items():
        at = token_at(model.chat, chain, score.start)
        if chain[at] not in ids_N:
            flaw = f"the score behind '{form.labels[name]}' begins with another token than a number of the range"
            return replace(completion, rewards={}, flaw=flaw)
        logits_V = model.backbone.get_output_embeddings()(before_TD[at]).float().cpu()
        rewards[name] = likeliest(logits_V[ids_N], form)
    return replace(completion, rewards=rewards)


def likeliest(logits_N: Tensor, form: AnswerForm) -> float:
    """The likeliest whole number of the range, times its share of the probability of all of them."""
    share_N = (logits_N / form.temperature).softmax(dim=-1)
    best = int(share_N.argmax())
    return form.candidates[best] * float(share_N[best])


def token_at(chat: Chat, chain: Sequence[int], start: int) -> int:
    """Which of a chain's tokens has this character of its text."""
    whole = chat.tokenizer.decode(chain, skip_special_tokens=True)
    place = start + len(whole) - len(whole.lstrip())

    def length(count: int) -> int:
        return len(chat.tokenizer.decode(chain[:count], skip_special_tokens=True))

    return bisect_left(range(len(chain) + 1), place + 1, key=length) - 1
