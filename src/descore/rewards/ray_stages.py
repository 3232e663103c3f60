"""What runs on the nodes of a Ray cluster: actors that decode clips, and actors that hold a model and score them.

In: blocks of rows of the work list, as Arrow tables. Out: the same rows with their clips, pickled; then their results.
Ray hands these classes to its workers by name, so descore is installed on each node."""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.rewards.decoding import DecodingPool
from descore.rewards.scored import result_schema
from descore.rewards.sources import SourceRow
from descore.types import Paradigm
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.scorer import SamplingParams, Scorer

ID, KEY, CLIP, MODEL_SECONDS = "id", "key", "clip", "seconds"
"""Columns beside those of a scored table. `id` is what Ray's checkpoint remembers: of a key and how often it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model that each actor opens."""

    name: str
    """As the user wrote it, and as the rows have it."""
    source: str
    """The same, with the path of a folder made absolute: a node's current folder is another."""
    paradigm: Paradigm | None
    device: str | None
    batch_size: int | None
    engine: str = "native"

    def open(self) -> "Scorer":
        """The scorer."""
        from descore.scorer import Scorer

        scorer = Scorer.from_pretrained(
            self.source,
            paradigm=self.paradigm,
            device=self.device,
            batch_size=self.batch_size,
            engine=self.engine,
        )
        scorer.name = self.name
        return scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the driver needs of a model that it does not open itself."""

    settings: Mapping[str, Any]
    """What rewards depend on; see `settings_of`."""
    dimensions: tuple[str, ...]
    sampling: VideoSampling
    batch_size: int
    warnings: tuple[str, ...]
    """What opening it warned of."""


def read_facts(choice: ModelChoice, params: "SamplingParams") -> ModelFacts:
    """Open the model where this runs, and say what it is."""
    from descore.rewards.bulk import settings_of

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DescoreWarning)
        scorer = choice.open()
    stored = scorer.settings
    return ModelFacts(
        settings=settings_of(scorer, params.resolved(stored.paradigm)),
        dimensions=stored.dimensions,
        sampling=stored.sampling,
        batch_size=scorer.batch_size,
        warnings=tuple(str(one.message) for one in caught if issubclass(one.category, DescoreWarning)),
    )


class ClipDecoder:
    """An actor that decodes in a process of its own, so that a clip which kills its decoder costs that clip alone."""

    def __init__(self, sampling: VideoSampling) -> None:
        self._read = partial(read_clip, sampling=sampling)
        self._pool = DecodingPool(workers=1)
        self._pool.start()

    def __call__(self, block: Any) -> Iterator[Any]:  # noqa: ANN401  # pyarrow is not typed
        """The rows one at a time, each with its clip or an error, so that large clips are handed on in parts."""
        arrow = import_module("pyarrow")
        for number, row in enumerate(block.to_pylist()):
            clip, error = self._decode(row)
            decoded = block.slice(number, 1).drop_columns(["path", "error"])
            decoded = decoded.append_column("error", arrow.array([error], arrow.string()))
            yield decoded.append_column(CLIP, arrow.array([clip], arrow.large_binary()))

    def _decode(self, row: Mapping[str, Any]) -> tuple[bytes | None, str | None]:
        if row["error"] is not None:
            return None, row["error"]
        result = self._pool.submit(self._read, row["path"]).result()
        return (None, result.reason) if isinstance(result, VideoError) else (pickle.dumps(result, protocol=5), None)


class ClipScorer:
    """An actor that holds a model. ConfigError where this node's differs from the one that the run has begun with."""

    def __init__(self, choice: ModelChoice, params: "SamplingParams", facts: ModelFacts) -> None:
        from descore.rewards.bulk import settings_of

        self._scorer = choice.open()
        self._params = params.resolved(self._scorer.settings.paradigm)
        self._schema = results_schema(facts.dimensions)
        settings = settings_of(self._scorer, self._params)
        unequal = [
            f"{name} is {settings[name]!r}, not {value!r}"
            for name, value in facts.settings.items()
            if settings[name] != value
        ]
        if unequal:
            raise ConfigError(f"a node differs ({'; '.join(unequal)}); install and copy the same on each")

    def __call__(self, block: Any) -> Any:  # noqa: ANN401  # pyarrow is not typed
        """The results of a window of rows, in its order."""
        from descore.rewards.bulk import ModelClock, row_of_result, score_window

        rows = block.to_pylist()
        window = [(_source_row(number, row), _clip_of(row)) for number, row in enumerate(rows)]
        clock, results = ModelClock(), {}
        for batch in score_window(window, self._scorer, self._params, clock):
            results.update({row.number: row_of_result(row, result, self._scorer).results() for row, result in batch})
        seconds = clock.model_seconds / len(rows)
        kept = [{name: row[name] for name in (ID, KEY, "prompt", "video")} for row in rows]
        table = [{**kept[number], MODEL_SECONDS: seconds, **results[number]} for number in range(len(rows))]
        return import_module("pyarrow").Table.from_pylist(table, schema=self._schema)


def results_schema(dimensions: tuple[str, ...]) -> Any:  # noqa: ANN401  # pyarrow is not typed
    """The columns of what the nodes write."""
    arrow = import_module("pyarrow")
    own = [(ID, arrow.uint64()), (KEY, arrow.uint64()), ("prompt", arrow.string()), ("video", arrow.string())]
    return result_schema(arrow.schema([*own, (MODEL_SECONDS, arrow.float64())]), dimensions)


def _source_row(number: int, row: Mapping[str, Any]) -> SourceRow:
    return SourceRow(number=number, cells={}, prompt=row["prompt"], video=row["video"], path="", error=row["error"])


def _clip_of(row: Mapping[str, Any]) -> Any:  # noqa: ANN401  # a Clip or a VideoError
    """The clip that a decoder of this run has pickled, or why there is none."""
    return VideoError(row["video"], row["error"]) if row["error"] is not None else pickle.loads(row[CLIP])
