"""The descore part of a checkpoint directory (DESIGN 7): descore.json, the rubric, the query and the head.

    descore.json               the settings below
    rubric.txt                 the judging text that the model was trained with
    reward_head.safetensors    `query` (D) and `head` (K, D), float32; a generative model has none

The rest of the directory is transformers' own. In a folder that `model.export` wrote for an engine, rows of the
vocabulary stand in place of the third file, and descore.json says which.

Shapes: V vocabulary, D width, K named dimensions."""

import json
import warnings
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from descore.config_model import ConfigModel, Names, SettingsError
from descore.errors import CheckpointError, ConfigError, DescoreError, DescoreWarning
from descore.model.chat import QUERY_TOKEN, Layout
from descore.rubric import DEFAULT_RUBRIC, AnswerForm, fill_rubric, read_released
from descore.types import Paradigm
from descore.video.sampling import VideoSampling

SCHEMA = 1
SETTINGS_FILE, RUBRIC_FILE, HEAD_FILE = "descore.json", "rubric.txt", "reward_head.safetensors"
WEIGHTS_FILE, INDEX_FILE, ADAPTER_CONFIG = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_WHERE_THERE_ARE_ANY = ("vocabulary_rows", "queries", "answer")
_JSON_FILES = (
    *("config.json", "generation_config.json", ADAPTER_CONFIG, INDEX_FILE, "chat_template.json"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
)
"""What transformers and PEFT read from a folder: objects, all of them."""
_FAULTS_OF_FILES = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""What libraries raise when a file holds another thing than they expect."""
_LIBRARIES = (
    "huggingface_hub",
    "jinja2",
    "peft",
    "pickle",
    "_pickle",
    "safetensors",
    "safetensors_rust",
    "transformers",
)
BUNDLED = ("tiny",)
ANSWER_DIMENSIONS = ("overall",)
"""The dimensions of a generative model."""


class VocabularyRows(ConfigModel):
    """Query and head as rows of the vocabulary, for engines that read logits and know of no head.

    At the query a dimension's reward is scale * (logit of hi + logit of lo), or, from log-probabilities,
    scale * (hi + lo - 2 * zero), where the normalizer cancels."""

    model_config = ConfigDict(title="vocabulary_rows")

    scale: PositiveFloat
    """What the head was divided by, so that its logits are among those of words."""
    query: NonNegativeInt
    """The query token's id: its row of the input matrix is the query."""
    zero: NonNegativeInt
    """A row of zeros of the output matrix."""
    hi: Mapping[str, NonNegativeInt]
    """By dimension, the row of the output matrix with head / scale in bfloat16."""
    lo: Mapping[str, NonNegativeInt]
    """By dimension, the row with what that rounding left."""

    @property
    def ids(self) -> list[int]:
        """All of the rows but the query's."""
        return [self.zero, *self.hi.values(), *self.lo.values()]

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A row for each, and each for one."""
        if self.hi.keys() != self.lo.keys():
            yield "lo", f"names {list(self.lo)}, expected the dimensions of hi, {list(self.hi)}"
        if len({self.query, *self.ids}) < 1 + len(self.ids):
            yield "", f"a row is taken twice: {[self.query, *self.ids]}"

    def fold(self, backbone: Any, *, query_D: Tensor, head_KD: Tensor) -> None:  # noqa: ANN401
        """Write query and head into a backbone's input and output matrix, which may be one and the same (tied).

        hi is rounded to bfloat16 whatever the matrices' precision, so that bfloat16 rounds nothing further when an
        engine opens them so; in float32 hi + lo is the head exactly."""
        inputs_VD, outputs_VD = _matrices(backbone)
        scaled_KD = head_KD.detach().float() / self.scale
        hi_KD = scaled_KD.bfloat16().float()
        inputs_VD[self.query] = query_D.detach().to(inputs_VD)
        outputs_VD[self.zero] = 0
        outputs_VD[list(self.hi.values())] = hi_KD.to(outputs_VD)
        outputs_VD[list(self.lo.values())] = (scaled_KD - hi_KD).to(outputs_VD)

    def unfold(self, backbone: Any, *, source: object) -> dict[str, Tensor]:  # noqa: ANN401
        """`query` (D) and `head` (K, D) in float32. Rows that are not there, or hold no head, raise CheckpointError."""
        inputs_VD, outputs_VD = _matrices(backbone)
        last, rows = max(self.query, *self.ids), len(outputs_VD)
        if last >= rows:
            raise CheckpointError(f"{source}: vocabulary_rows names row {last}, the vocabulary has {rows}")
        if outputs_VD[self.zero].any():
            raise CheckpointError(f"{source}: row {self.zero} is not zero, as vocabulary_rows says; export it again")
        hi_KD, lo_KD = (outputs_VD[list(ids.values())].float() for ids in (self.hi, self.lo))
        head_KD = self.scale * (hi_KD + lo_KD)
        return _checked_head({"query": inputs_VD[self.query].float(), "head": head_KD}, source=source)


def _matrices(backbone: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Input and output matrix (V, D), without gradients."""
    return backbone.get_input_embeddings().weight.detach(), backbone.get_output_embeddings().weight.detach()


class CheckpointSettings(ConfigModel):
    """The settings of a checkpoint, beside its weights."""

    model_config = ConfigDict(title=SETTINGS_FILE)

    paradigm: Paradigm = "descore"
    """Where the reward is read: by the head, at the query behind a chain (descore) or, by a model that was trained
    without chains, at once (discriminative); or in the answer that the chain ends with (generative)."""
    dimensions: Names = ("overall",)
    """Names of the head's outputs, in order. A generative model has one, which is the answer's overall score, or those
    of its `answer`."""
    query_token: str = QUERY_TOKEN
    """The token behind the chain."""
    layout: Annotated[Layout, Field(strict=False)] = Layout.QUERY_LAST
    """Where the query stands."""
    sampling: VideoSampling = VideoSampling()
    """How clips are read."""
    max_chain_tokens: PositiveInt = 1024
    """Tokens that a chain may have before it is ended from outside."""
    reward_mean: Mapping[str, float] | None = None
    """Mean reward of each dimension on the calibration split."""
    reward_std: Mapping[str, PositiveFloat] | None = None
    """Its standard deviation."""
    trained_on: str | None = None
    """What query and head were fitted on, or, of a generative model, its answers; None if they never were."""
    vocabulary_rows: VocabularyRows | None = Field(default=None, repr=False)  # digests of older runs have no such field
    """Where query and head are, in a folder that was exported for an engine; None: in a file of their own."""
    queries: Names | None = Field(default=None, repr=False)
    """Tokens inside the rubric at which the dimensions' rewards are read, in their order, each a row of the backbone's
    embedding; None: the query token behind the chain."""
    answer: AnswerForm | None = Field(default=None, repr=False)
    """How a generative model's answers are read; None: as the default rubric asks for them."""

    @property
    def outputs(self) -> int:
        """Rows of the head: one for each dimension, and none in a generative model."""
        return 0 if self.paradigm == "generative" else len(self.dimensions)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """One query token; unlike dimensions; a mean and a deviation for each of them, or for none."""
        if self.query_token != QUERY_TOKEN:
            yield "query_token", f"is {self.query_token!r}, expected {QUERY_TOKEN!r}"
        if len(set(self.dimensions)) < len(self.dimensions):
            yield "dimensions", f"names one twice: {list(self.dimensions)}"
        answers = ANSWER_DIMENSIONS if self.answer is None else tuple(self.answer.labels)
        if self.paradigm == "generative" and self.dimensions != answers:
            yield "dimensions", f"is {self.dimensions!r}, a generative model has {answers!r} alone"
        if (self.reward_mean is None) != (self.reward_std is None):
            yield "reward_mean", "and reward_std go together, found one of them"
        for name, numbers in (("reward_mean", self.reward_mean), ("reward_std", self.reward_std)):
            if numbers is not None and set(numbers) != set(self.dimensions):
                yield name, f"is {dict(numbers)!r}, expected a number for each dimension"
        if self.queries is not None and (
            self.paradigm != "discriminative" or len(self.queries) != len(self.dimensions)
        ):
            yield "queries", f"is {list(self.queries)}, expected one for each dimension of a discriminative model"
        if self.vocabulary_rows is not None and tuple(self.vocabulary_rows.hi) != self.dimensions:
            yield "vocabulary_rows", f"has {list(self.vocabulary_rows.hi)}, expected each dimension in order"


class RefuseBroken:
    """A block in which a library reads a checkpoint's file: what it raises becomes a CheckpointError of one line, with
    the file and the reason. Errors of descore's own pass."""

    def __init__(self, file: object, what: str) -> None:
        self.file, self.what = file, what

    def __enter__(self) -> None:
        """Nothing is prepared."""

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: TracebackType | None) -> None:
        if fault is None or isinstance(fault, DescoreError):
            return
        library = type(fault).__module__.partition(".")[0]
        # The tokenizers' library raises Exception itself.
        if isinstance(fault, _FAULTS_OF_FILES) or library in _LIBRARIES or type(fault) is Exception:
            raise CheckpointError(f"{self.file}: {self.what}: {_reason(fault)}") from fault


def _reason(fault: BaseException) -> str:
    line = next(iter(str(fault).strip().splitlines()), "")
    if "custom code" in line:
        return "it needs code of its own, which is never run; expected a model that transformers knows"
    if not line or isinstance(fault, LookupError | AssertionError | AttributeError):
        return f"{type(fault).__name__} {line}".strip()
    return line


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Whatever else it holds raises CheckpointError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:  # no JSON, no UTF-8, or a number of too many digits
        raise CheckpointError(f"{file}: is not JSON: {_reason(fault)}") from fault
    except RecursionError as fault:
        raise CheckpointError(f"{file}: is not JSON of a checkpoint: it is nested too deeply") from fault
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: found {type(content).__name__}, expected an object")
    return content


def check_folder(folder: Path) -> None:
    """Refuse what no library refuses in one line: a name of no folder and no hub id, JSON that holds no object, an
    index that names files elsewhere, and an adapter whose base is no path. Raises CheckpointError."""
    if not folder.is_dir() and not is_hub_id(folder):
        raise _no_such(folder)
    content = {name: read_json(folder / name) for name in _JSON_FILES if (folder / name).is_file()}
    if INDEX_FILE in content:
        weight_files(folder)
    adapter = content.get(ADAPTER_CONFIG, {})
    base = adapter.get("base_model_name_or_path")
    if not isinstance(base, str | None):
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: base_model_name_or_path is {base!r}, expected a path")
    if adapter.get("megatron_config"):  # PEFT then imports the module that `megatron_core` names
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: has megatron_config; expected a plain LoRA adapter")


def weight_files(folder: Path) -> list[Path]:
    """The backbone's safetensors files, one or many; none if there are none. An index that names a file which is not
    in the folder raises CheckpointError."""
    index = folder / INDEX_FILE
    if not index.is_file():
        return [folder / WEIGHTS_FILE] if (folder / WEIGHTS_FILE).is_file() else []
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index}: weight_map is no object of file names")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{folder}: has no {name}, which {INDEX_FILE} names")
    return [folder / name for name in names]


def find_checkpoint(source: str | Path) -> Path:
    """The directory of a bundled name, a folder, or a hub id (`owner/name`, fetched and cached).

    Whatever cannot be found raises CheckpointError."""
    if str(source) in BUNDLED:
        bundled = Path(str(files("descore") / "bundled" / str(source)))
        if not bundled.is_dir():
            raise CheckpointError(f"{source}: this installation lacks its bundled model ({bundled}); install it again")
        return bundled
    folder = Path(source)
    if folder.is_dir():
        return folder
    if is_hub_id(source):
        return _fetch(str(source))
    raise _no_such(source)


def is_hub_id(source: object) -> bool:
    """Whether this is written as owner/name."""
    return str(source).count("/") == 1 and not str(source).startswith((".", "/", "~"))


def _no_such(source: object) -> CheckpointError:
    expected = f"a checkpoint's folder, a hub id like owner/name, or {', '.join(BUNDLED)}"
    return CheckpointError(f"{source}: no such folder; expected {expected}")


def _fetch(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
        reason = str(fault).strip().splitlines()[0]
        raise CheckpointError(f"{repo}: no such folder, and the hub does not give it: {reason}") from fault


def read_as(folder: Path, paradigm: Paradigm | None, *, rubric: str | None = None) -> tuple[CheckpointSettings, str]:
    """Settings and judging text of a folder, to be opened in a paradigm; None: the folder's own. rubric: what
    `read_released` takes, for a generative judge whose answers have that form.

    Any checkpoint can be opened as generative, and so can a plain backbone: with the default settings, and the default
    rubric unless a rubric.txt lies beside it. What a head learned does not carry over. No checkpoint becomes descore or
    discriminative by being opened so: CheckpointError."""
    if rubric is not None:
        return _released(rubric, paradigm)
    if paradigm == "generative" and not (folder / SETTINGS_FILE).is_file():
        rubric = read_rubric(folder) if (folder / RUBRIC_FILE).is_file() else DEFAULT_RUBRIC
        return CheckpointSettings(paradigm="generative"), rubric
    settings, rubric = read_settings(folder), read_rubric(folder)
    if paradigm in (None, settings.paradigm):
        return settings, rubric
    if paradigm != "generative":
        raise CheckpointError(f"{folder}: {_NOT_OTHERWISE[settings.paradigm]}")
    return _without_head(settings), rubric


def _released(name: str, paradigm: Paradigm | None) -> tuple[CheckpointSettings, str]:
    if paradigm not in (None, "generative"):
        raise ConfigError(f"rubric: {name} is for a generative judge, and the paradigm is {paradigm}")
    released = read_released(name)
    if released.answer is None:
        raise ConfigError(f"rubric: {name} is of a model with a head, and nothing is read from what it writes")
    try:
        settings = CheckpointSettings(
            paradigm="generative",
            dimensions=tuple(released.answer.labels),
            answer=released.answer,
            sampling=VideoSampling(**released.sampling),
            max_chain_tokens=released.max_chain_tokens,
        )
    except SettingsError as error:
        raise SettingsError(f"{name}: {error.title}", error.faults) from error
    return settings, released.rubric


_NOT_OTHERWISE: Mapping[Paradigm, str] = {
    "descore": "was trained with chains; open it as it is: with think off it scores at once",
    "discriminative": (
        "is discriminative: it was trained without chains, and its rewards behind one mean nothing; open it as it is, "
        "or train it on with descore train cold-start, on pairs with chains and with data.chain_drop below 1"
    ),
    "generative": "is generative and has no head; open it as it is, or train one",
}
"""By what a checkpoint is, why it cannot be opened as something else with a head, and what to do."""


def _without_head(settings: CheckpointSettings) -> CheckpointSettings:
    own = {"paradigm": "generative", "dimensions": ANSWER_DIMENSIONS, "layout": Layout.QUERY_LAST}
    lost = ("reward_mean", "reward_std", "trained_on", "vocabulary_rows", "queries")
    return settings.model_copy(update={**dict.fromkeys(lost), **own})


def read_settings(folder: Path) -> CheckpointSettings:
    """The settings in descore.json. What is missing, unknown or wrong raises CheckpointError."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: has no {SETTINGS_FILE}; a plain backbone judges as it is with --paradigm generative (in Python "
            'paradigm="generative"), and becomes a reward model to train by DescoreModel.from_backbone'
        )
    raw = read_json(path)
    schema = raw.pop("schema", None)
    if schema != SCHEMA:
        raise CheckpointError(f"{path}: schema is {schema!r}, this version reads {SCHEMA}")
    try:
        return CheckpointSettings(**raw)
    except SettingsError as error:
        raise CheckpointError(str(SettingsError(str(path), error.faults))) from error


def read_rubric(folder: Path) -> str:
    """The checkpoint's judging text."""
    path = folder / RUBRIC_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no {RUBRIC_FILE}; a model scores well only under the text it learned")
    try:
        rubric = path.read_text(encoding="utf-8")
        fill_rubric(rubric, prompt="")
    except (OSError, UnicodeDecodeError, ConfigError) as fault:
        raise CheckpointError(f"{path}: cannot be used as a rubric: {_reason(fault)}") from fault
    return rubric


def read_head(folder: Path, settings: CheckpointSettings, backbone: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """`query` (D) and `head` (K, D), in float32, from their file or the backbone's rows. What is missing, broken or
    ill-fitting raises CheckpointError."""
    if settings.vocabulary_rows is not None:
        return settings.vocabulary_rows.unfold(backbone, source=folder)
    width, outputs = backbone.get_input_embeddings().weight.shape[1], settings.outputs
    path = folder / HEAD_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no {HEAD_FILE}; without it there is no reward")
    with RefuseBroken(path, "cannot be read"):
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    expected = {"query": (width,), "head": (outputs, width)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise CheckpointError(f"{path}: found {found}; this backbone and these dimensions need {expected}")
    return _checked_head(tensors, source=path)


def _checked_head(tensors: dict[str, Tensor], *, source: object) -> dict[str, Tensor]:
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"{source}: holds numbers that are not finite")
    for row in (~tensors["head"].any(dim=1)).nonzero().flatten().tolist():
        message = f"{source}: row {row} of the head is all zero; its reward is 0 for every video"
        warnings.warn(message, DescoreWarning, stacklevel=3)
    return tensors


def write_descore_files(
    folder: Path, *, settings: CheckpointSettings, rubric: str, query: Tensor, head: Tensor
) -> None:
    """Write the three files, or two for a generative model, into a directory that transformers has written to."""
    write_settings(folder, settings)
    (folder / RUBRIC_FILE).write_text(rubric, encoding="utf-8")
    if settings.paradigm == "generative":
        return
    weights = {"query": query.detach().float().cpu().contiguous(), "head": head.detach().float().cpu().contiguous()}
    save_file(weights, folder / HEAD_FILE)


def write_settings(folder: Path, settings: CheckpointSettings) -> None:
    """Write descore.json. Of rows of the vocabulary and queries in the rubric it speaks only where there are any."""
    fields = settings.model_dump(mode="json")
    fields = {name: value for name, value in fields.items() if value is not None or name not in _WHERE_THERE_ARE_ANY}
    content = json.dumps({"schema": SCHEMA, **fields}, indent=2)
    (folder / SETTINGS_FILE).write_text(content + "\n", encoding="utf-8")
