"""Learning to write chains (stage 0): next-token training of a backbone on chains that a table has.

    result = train_sft(config)

Takes an `SftConfig`, gives a run directory (see `descore.training.runs`) with a model that
`DescoreModel.from_pretrained` opens. The query and the head are not trained. A head that was fitted before does not fit
the new hidden states, so the model's settings say that it was never trained."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import descore.model  # noqa: F401  # torchvision, before transformers imports it

# isort: split
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments

from descore.data.tables import Cells, read_rows
from descore.errors import DataError, DescoreWarning, VideoError
from descore.model.modeling import DescoreModel
from descore.training.collate import ChainCollator, TrainingExample, Unreadable
from descore.training.config import SftConfig
from descore.training.dataset import ArrowTable, EpochSampler, Key, write_arrow_table
from descore.training.losses import next_token_loss
from descore.training.metrics import ProgressCallback, ignore_progress
from descore.training.models import zero_loss
from descore.training.runs import Tables, TrainingResult, write_model
from descore.training.trainer import DescoreTrainer, build_trainer, run_training
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

_SCHEMA = pa.schema([("line", pa.int64()), ("prompt", pa.string()), ("video", pa.binary()), ("chain", pa.string())])
_SIDES = ("", "_a", "_b")
_WITHOUT_CHAINS = "this stage learns to write chains: leave rows without one out, or train cold-start on pairs only"


def train_sft(config: SftConfig, *, on_progress: ProgressCallback = ignore_progress) -> TrainingResult:
    """Train, or resume training, and write the model. `on_progress` is called after each update.

    ConfigError if the run directory holds another run, DataError for a faulty table or too many unreadable videos."""

    def build(model: DescoreModel, args: TrainingArguments, tables: Tables) -> DescoreTrainer:
        sampling = model.settings.sampling
        data = {name: ChainTable(table, index=index, sampling=sampling) for name, (table, index) in tables.items()}
        return build_trainer(
            config,
            trainer_class=DescoreTrainer,
            model=model,
            examples={str(table.table): len(table) for table in data.values()},
            on_progress=on_progress,
            loss=chain_batch_loss,
            count=count_tokens,
            sampler=EpochSampler(len(data["train"]), seed=config.optim.seed),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data.get("eval"),
            data_collator=ChainCollator(model.chat),
        )

    def finalize(trainer: DescoreTrainer) -> None:
        if trainer.is_world_process_zero():
            write_model(trainer.descore_model, config)

    tables = {"train": config.data.train, "eval": config.data.eval}
    return run_training(config, tables=tables, index=index_table, build=build, finalize=finalize)


def chain_batch_loss(model: DescoreModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Next-token loss summed over a batch's chain tokens, and how many of them were the likeliest."""
    if not len(batch["chain_mask"]):
        zero = zero_loss(model)
        return zero, {"token_accuracy": torch.zeros(2, device=zero.device)}
    result = next_token_loss(model, batch, model.hidden(batch))
    return result.loss, {"token_accuracy": torch.stack([result.correct, result.tokens.float()])}


def count_tokens(batch: dict[str, Any]) -> int:
    """Chain tokens of a batch, each chain's end of turn included."""
    return int(batch["chain_mask"].sum())


class ChainTable(Dataset):  # type: ignore[type-arg]  # torch's Dataset is generic in name only
    """The examples of a table, by number, the same in every epoch. An item whose video cannot be read is an
    `Unreadable`."""

    def __init__(self, table: Path, *, index: Path, sampling: VideoSampling) -> None:
        """`index` is the Arrow file that `index_table` wrote for this table."""
        self.table = table
        self.sampling = sampling
        self.rows = ArrowTable(index)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> TrainingExample | Unreadable:
        cells = self.rows[key[1] if isinstance(key, tuple) else key]
        video = str(self.table.parent / os.fsdecode(cells["video"]))  # text in the files of older versions
        try:
            clip = read_clip(video, sampling=self.sampling)
        except VideoError as fault:
            return Unreadable(table=str(self.table), line=cells["line"], video=video, reason=fault.reason)
        return TrainingExample(clip=clip, prompt=cells["prompt"], chain=cells["chain"])


def index_table(table: Path, index: Path) -> None:
    """Check a table and write the Arrow file of its examples: columns prompt, video, chain; or of pairs, with video_a,
    chain_a, video_b, chain_b. A file that exists must be of the same table.

    DataError with file and line if a row lacks something, ConfigError if the file is of another table."""
    rows = (example | {"video": os.fsencode(example["video"])} for example in read_examples(table))
    write_arrow_table(table, index, rows, schema=_SCHEMA)


def read_examples(table: Path) -> Iterator[dict[str, Any]]:
    """Line, prompt, video and chain of each example, in order. Pairs without any chain are left out, and a
    DescoreWarning counts them. DataError for a row that lacks something else, or if no pair has chains."""
    sides: tuple[str, ...] = ()
    without = examples = 0
    for line, row in read_rows(table, columns=("prompt",)):
        cells = Cells(file=str(table), line=line, row=row)
        sides = sides or _sides_of(cells)
        if len(sides) > 1 and all(cells.text("chain" + side) is None for side in sides):
            without += 1
            continue
        for side in sides:
            if cells.text("chain" + side) is None:
                raise cells.error(f"chain{side} is empty; {_WITHOUT_CHAINS}")
            texts = {"video": cells.video("video" + side), "chain": cells.required("chain" + side)}
            examples += 1
            yield {"line": line, "prompt": cells.required("prompt"), **texts}
    if without and not examples:
        raise DataError(str(table), 1, f"no pair has chains; {_WITHOUT_CHAINS}")
    if without:
        warnings.warn(f"{table}: pairs without chains are left out: {without:,}", DescoreWarning, stacklevel=2)


def _sides_of(cells: Cells) -> tuple[str, ...]:
    """The suffixes of `video` and `chain` in the table's column names."""
    sides = tuple(side for side in _SIDES if {f"video{side}", f"chain{side}"} <= cells.row.keys())
    if not sides:
        columns = ", ".join(cells.row)
        expected = "video and chain, or video_a, chain_a, video_b, chain_b"
        raise DataError(
            cells.file, 1, f"no columns to learn from; expected {expected}, found {columns}; {_WITHOUT_CHAINS}"
        )
    return sides
