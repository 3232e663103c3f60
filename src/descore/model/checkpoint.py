"""The descore part of a checkpoint directory (DESIGN 7): descore.json, the rubric, the query and the head.

    descore.json               the settings below
    rubric.txt                 the judging text that the model was trained with
    reward_head.safetensors    `query` (D) and `head` (K, D), float32; a generative model has none

The rest of the directory is transformers' own.

Shapes: D width, K named dimensions."""

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from descore.config_model import ConfigModel, Names, SettingsError
from descore.data.chat import QUERY_TOKEN, Layout
from descore.errors import CheckpointError
from descore.rubric import DEFAULT_RUBRIC, fill_rubric
from descore.types import Paradigm
from descore.video.sampling import VideoSampling

SCHEMA = 1
SETTINGS_FILE, RUBRIC_FILE, HEAD_FILE = "descore.json", "rubric.txt", "reward_head.safetensors"
BUNDLED = ("tiny",)
ANSWER_DIMENSIONS = ("overall",)
"""The dimensions of a generative model."""


class CheckpointSettings(ConfigModel):
    """The settings of a checkpoint, beside its weights."""

    model_config = ConfigDict(title=SETTINGS_FILE)

    paradigm: Paradigm = "descore"
    """Where the reward is read: by the head, at the query behind a chain (descore) or, by a model that was trained
    without chains, at once (discriminative); or in the answer that the chain ends with (generative)."""
    dimensions: Names = ("overall",)
    """Names of the head's outputs, in order. A generative model has one, which is the answer's overall score."""
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
        if self.paradigm == "generative" and self.dimensions != ANSWER_DIMENSIONS:
            yield "dimensions", f"is {self.dimensions!r}, a generative model has {ANSWER_DIMENSIONS!r} alone"
        if (self.reward_mean is None) != (self.reward_std is None):
            yield "reward_mean", "and reward_std go together, found one of them"
        for name, numbers in (("reward_mean", self.reward_mean), ("reward_std", self.reward_std)):
            if numbers is not None and set(numbers) != set(self.dimensions):
                yield name, f"is {dict(numbers)!r}, expected a number for each dimension"


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
    if str(source).count("/") == 1 and not str(source).startswith((".", "/", "~")):
        return _fetch(str(source))
    raise CheckpointError(
        f"{source}: no such folder; expected a checkpoint's folder, a hub id like owner/name, or {', '.join(BUNDLED)}"
    )


def _fetch(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
        reason = str(fault).strip().splitlines()[0]
        raise CheckpointError(f"{repo}: no such folder, and the hub does not give it: {reason}") from fault


def read_as(folder: Path, paradigm: Paradigm | None) -> tuple[CheckpointSettings, str]:
    """Settings and judging text of a folder, to be opened in a paradigm; None: the folder's own.

    Any checkpoint can be opened as generative, and so can a plain backbone: with the default settings, and the default
    rubric unless a rubric.txt lies beside it. What a head learned does not carry over. No checkpoint becomes descore or
    discriminative by being opened so: CheckpointError."""
    if paradigm == "generative" and not (folder / SETTINGS_FILE).is_file():
        rubric = read_rubric(folder) if (folder / RUBRIC_FILE).is_file() else DEFAULT_RUBRIC
        return CheckpointSettings(paradigm="generative"), rubric
    settings, rubric = read_settings(folder), read_rubric(folder)
    if paradigm in (None, settings.paradigm):
        return settings, rubric
    if paradigm != "generative":
        raise CheckpointError(f"{folder}: {_NOT_OTHERWISE[settings.paradigm]}")
    return _without_head(settings), rubric


_NOT_OTHERWISE: Mapping[Paradigm, str] = {
    "descore": "was trained with chains; open it as it is: with think off it scores at once",
    "discriminative": (
        "is discriminative: it was trained without chains, and its rewards behind one mean nothing; open it as it is, "
        "or train it on with descore train cold-start and data.chain_drop below 1"
    ),
    "generative": "is generative and has no head; open it as it is, or train one",
}
"""By what a checkpoint is, why it cannot be opened as something else with a head, and what to do."""


def _without_head(settings: CheckpointSettings) -> CheckpointSettings:
    return settings.model_copy(
        update={
            "paradigm": "generative",
            "dimensions": ANSWER_DIMENSIONS,
            "layout": Layout.QUERY_LAST,
            "reward_mean": None,
            "reward_std": None,
            "trained_on": None,
        }
    )


def read_settings(folder: Path) -> CheckpointSettings:
    """The settings in descore.json. What is missing, unknown or wrong raises CheckpointError."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: has no {SETTINGS_FILE}; a plain Qwen3-VL judges as it is with --paradigm generative (in Python "
            'paradigm="generative"), and becomes a reward model to train by DescoreModel.from_backbone'
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise CheckpointError(f"{path}: is not JSON: {fault}") from fault
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: found {type(raw).__name__}, expected an object")
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
    rubric = path.read_text(encoding="utf-8")
    fill_rubric(rubric, prompt="")
    return rubric


def read_head(folder: Path, *, width: int, outputs: int) -> dict[str, Tensor]:
    """`query` (D) and `head` (K, D), in float32. A missing, broken or ill-fitting file raises CheckpointError."""
    path = folder / HEAD_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no {HEAD_FILE}; without it there is no reward")
    try:
        tensors = load_file(path)
    except SafetensorError as fault:
        raise CheckpointError(f"{path}: cannot be read: {fault}") from fault
    expected = {"query": (width,), "head": (outputs, width)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise CheckpointError(f"{path}: found {found}; this backbone and these dimensions need {expected}")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"{path}: holds numbers that are not finite")
    return {name: tensor.float() for name, tensor in tensors.items()}


def write_descore_files(
    folder: Path, *, settings: CheckpointSettings, rubric: str, query: Tensor, head: Tensor
) -> None:
    """Write the three files, or two for a generative model, into a directory that transformers has written to."""
    (folder / SETTINGS_FILE).write_text(
        json.dumps({"schema": SCHEMA, **settings.model_dump(mode="json")}, indent=2) + "\n", encoding="utf-8"
    )
    (folder / RUBRIC_FILE).write_text(rubric, encoding="utf-8")
    if settings.paradigm == "generative":
        return
    weights = {"query": query.detach().float().cpu().contiguous(), "head": head.detach().float().cpu().contiguous()}
    save_file(weights, folder / HEAD_FILE)
