"""A teacher in this process: a generative judge, any Qwen3-VL, or a checkpoint of ours, which writes and is not scored.

In: tasks, and the numbers of their chains that are missing. Out: each outcome to a callback. A clip's chain depends on
the seed and its number alone, so that a run that goes on writes what it would have written."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from time import monotonic

from descore.chains.asking import ChainOutcome, KeepOutcome, MissingChains
from descore.chains.config import CollectConfig
from descore.chains.records import RequestFault
from descore.chains.server import Answer
from descore.chains.tasks import AskedWith
from descore.errors import VideoError
from descore.model.chat import Inputs
from descore.model.generation import think_and_score
from descore.rubric import PLACEHOLDER
from descore.scorer import Scorer
from descore.types import Clip, Completion
from descore.video.reader import read_clip


def ask_native(
    missing: Iterable[MissingChains], config: CollectConfig, asked_with: AskedWith, *, keep: KeepOutcome
) -> str | None:
    """Write all missing chains. Returns why it was stopped early, or None. CheckpointError if the teacher cannot be
    opened."""
    teacher = config.teacher
    scorer = Scorer.from_pretrained(teacher.model, paradigm="generative", device=teacher.device)
    minutes, start = config.limits.deadline, monotonic()
    for batch in _batches(missing, teacher.batch_size):
        if minutes is not None and monotonic() - start >= 60 * minutes:
            return f"the deadline of {minutes:g} minutes"
        _ask_batch(batch, scorer, config, asked_with, keep=keep)
    return None


def _batches(missing: Iterable[MissingChains], size: int) -> Iterator[list[MissingChains]]:
    """Clips that are asked about together: with one judging text, since a chat has one rubric."""
    for _, group in groupby(missing, key=lambda each: each[0].note):
        while batch := list(islice(group, size)):
            yield batch


def _ask_batch(
    batch: Sequence[MissingChains], scorer: Scorer, config: CollectConfig, asked_with: AskedWith, *, keep: KeepOutcome
) -> None:
    readable: list[tuple[MissingChains, Clip]] = []
    for each in batch:
        try:
            readable.append((each, read_clip(each[0].path, sampling=asked_with.sampling)))
        except VideoError as error:
            _keep_fault(each, error, keep)
    if not readable:
        return
    start, inputs = monotonic(), _lay_out(readable, scorer, asked_with)
    limit = asked_with.max_tokens
    if too_long := scorer.too_long([clip for _, clip in readable], inputs, limit):
        for index, reason in too_long.items():
            _keep_fault(readable[index][0], reason, keep)
        fitting = [each for index, (each, _) in enumerate(readable) if index not in too_long]
        if fitting:
            _ask_batch(fitting, scorer, config, asked_with, keep=keep)
        return
    samples = 1 + max(number for (_, numbers), _ in readable for number in numbers)
    completions = think_and_score(
        scorer.model,
        {key: value.to(scorer.model.device) for key, value in inputs.items()},
        limit=limit,
        samples=samples,
        temperature=1.0 if config.teacher.temperature is None else config.teacher.temperature,
        seeds=[config.teacher.seed] * len(readable),
    )
    seconds = (monotonic() - start) / (len(readable) * samples)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    for ((task, numbers), _), length, written in zip(readable, lengths, completions, strict=True):
        for number in numbers:
            keep(task, number, _outcome(written[number], scorer.name, tokens_in=length, seconds=seconds))


def _lay_out(readable: Sequence[tuple[MissingChains, Clip]], scorer: Scorer, asked_with: AskedWith) -> Inputs:
    """The user turns under the run's rubric, as the model will read them when it is trained on the chains."""
    note = readable[0][0][0].note.replace(PLACEHOLDER, "{ prompt }").replace("{video}", "{ video }")
    rubric = asked_with.rubric + (f"\n\n{note}" if note else "")
    chat = replace(scorer.model.chat, rubric=rubric)
    return chat.lay_out_prompts([clip for _, clip in readable], [task.prompt for (task, _), _ in readable])


def _keep_fault(missing: MissingChains, error: VideoError, keep: KeepOutcome) -> None:
    task, numbers = missing
    for number in numbers:
        keep(task, number, ChainOutcome(answer=None, fault=RequestFault(kind="unreadable", message=str(error))))


def _outcome(completion: Completion, teacher: str, *, tokens_in: int, seconds: float) -> ChainOutcome:
    answer = Answer(
        text=completion.text,
        thinking=None,
        finish="length" if completion.truncated else "stop",
        teacher=teacher,
        tokens_in=tokens_in,
        tokens_out=completion.num_tokens,
    )
    return ChainOutcome(
        answer=answer, fault=None, tokens_in=tokens_in, tokens_out=completion.num_tokens, seconds=seconds
    )
