"""A served model in the place of a Scorer, for what computes with scores: `RewardFunction` and the trainers' adapters.

In: requests whose videos are clips, sampled here as the server's checkpoint says. Out: `Score` records with all chains,
so that what is made of them is what it is with the model in this process."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from descore.errors import AnswerError, ConfigError, DescoreError
from descore.model.checkpoint import CheckpointSettings
from descore.rubric import read_answer
from descore.scorer import Request
from descore.serving.schema import ModelCard, ServedChain, ServedScore
from descore.types import Clip, Completion, Score

if TYPE_CHECKING:
    from descore.serving.client import Client


class ServedScorer:
    """Scores clips on a server. Threads may share it."""

    device = torch.device("cpu")
    """Where clips are prepared."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @cached_property
    def card(self) -> ModelCard:
        """The model as the server describes it. ConfigError for one that the server does not have."""
        cards = self._client.model_list().models
        wanted = self._client.model
        card = next((card for card in cards if (card.default if wanted is None else card.name == wanted)), None)
        if card is None:
            names = ", ".join(card.name for card in cards)
            raise ConfigError(f"{self._client.url}: no model {wanted!r}; it has {names}")
        return card

    @property
    def name(self) -> str:
        """Of the checkpoint, as the server was started with it."""
        return self.card.source

    @cached_property
    def settings(self) -> CheckpointSettings:
        """Of the checkpoint."""
        return CheckpointSettings.model_validate_json(self.card.settings)

    @property
    def model(self) -> NoReturn:
        """ConfigError: the weights are elsewhere."""
        raise ConfigError(f"{self._client.url}: a served model has no weights here; open the checkpoint itself")

    def score_each(
        self,
        requests: Iterable[Request | tuple[Any, str]],
        **sampling_params: Any,  # noqa: ANN401
    ) -> Iterator[Score | DescoreError]:
        """See `Scorer.score_each`; several requests are under way at a time. A server that cannot be asked, or has no
        room for longer than the client is patient, is the error of the requests that were under way."""
        asked = list(requests)
        answers = self._client.score_each(asked, chains=True, **_plain(sampling_params))
        for given, answer in zip(asked, answers, strict=True):
            clip = given.video if isinstance(given, Request) else given[0]
            yield _score(answer, clip) if isinstance(answer, ServedScore) else answer


def _plain(sampling_params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sampling_params.items() if value is not None}


def _score(answer: ServedScore, clip: Clip) -> Score:
    return Score(
        clip=clip,
        prompt=answer.prompt,
        model=answer.model,
        reward=answer.reward,
        score=answer.score,
        std=answer.std,
        completions=tuple(map(_completion, answer.chains or ())),
        left_out=tuple(answer.reasons_left_out or ()),
        prompt_tokens=answer.prompt_tokens,
    )


def _completion(chain: ServedChain) -> Completion:
    verdict, flaw = None, chain.flaw
    if chain.text and flaw is None:
        try:
            verdict = read_answer(chain.text)
        except AnswerError as error:  # of a server of another version
            flaw = str(error)
    return Completion(
        token_ids=chain.token_ids,
        text=chain.text,
        truncated=chain.truncated,
        verdict=verdict,
        flaw=flaw,
        rewards=chain.rewards,
    )
