"""The layouts of other projects' tables of pairs and ratings that become tables of ours.

Rows of data, like the public benchmarks, and most of them are just these; tables to train on are added here. What was
read where, and what could not be verified, stands in a row's notes. Knows facts; does nothing but take rows apart."""

import ast
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from descore.data.pairs import OVERALL, PairColumns, SideColumns
from descore.data.tables import Row, Rows, nearest
from descore.errors import ConfigError, DataError
from descore.evaluation.catalogue import PUBLIC
from descore.evaluation.layouts import Benchmark
from descore.types import Preference

RATINGS = "ratings"
"""The layout of the project's own tables of rated clips, whose columns each table tells itself."""

_A_B_SAME: dict[str, Preference | None] = {"A": "a", "B": "b", "same": "tie", "invalid": None}
_ALIGN = ("VQ", "MQ", "TA")


def two_videos(rows: Rows, file: str) -> Rows:
    """DeScore's reference: `videos` holds both paths as a list; they become `video_a` and `video_b`."""
    for line, row in rows:
        paths = _listed(row.get("videos"))
        if not isinstance(paths, list | tuple) or len(paths) != 2 or not all(isinstance(path, str) for path in paths):
            raise DataError(file, line, f"videos is {row.get('videos')!r}; expected a list of two paths")
        own: Row = {"video_a": paths[0], "video_b": paths[1]}
        yield line, {**row, **own}


def _listed(cell: Any) -> Any:  # noqa: ANN401  # whatever the table holds
    """A list that is written out, as Python and JSON do; what is none stays as it is."""
    if not isinstance(cell, str):
        return cell
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell


DESCORE = Benchmark(
    name="descore",
    title="DeScore's reference code, training table",
    kind="pairs",
    size="pairs with chains",
    reads=("videos", "prompt", "GSB"),
    reshape=two_videos,
    columns=PairColumns(
        preference={OVERALL: "GSB"},
        values=_A_B_SAME,
        a=SideColumns(chain="CoT_A", ratings={OVERALL: "MOS_A_GSB"}),
        b=SideColumns(chain="CoT_B", ratings={OVERALL: "MOS_B_GSB"}),
    ),
    how_to_get="the table that cold_start/train.sh of github.com/KlingAIResearch/DeScore names as --meta_data",
    notes="Columns videos, problem, durations, prompt, CoT_A, CoT_B, GSB (A, B, same or invalid), as the reference's"
    " README and cold_start/data.py have them, and MOS_A_GSB, MOS_B_GSB where they are there. problem, the instruction"
    " that its model was asked with, is left out: here the rubric belongs to the checkpoint, and prompt fills it. Its"
    " code turns 'same' into an invalid label; here it is a tie. Not verified: a table of theirs; whether its paths"
    " are relative to the table (give --root if not); and whether the answers of its chains have the keys that"
    " `descore data check` expects.",
)

VIDEOALIGN = Benchmark(
    name="videoalign",
    title="VideoAlign, training or example table",
    kind="pairs",
    size="pairs",
    table="pairs.csv",
    columns=PairColumns(
        video_a="path_A",
        video_b="path_B",
        preference={label: label for label in _ALIGN},
        values=_A_B_SAME,
        a=SideColumns(ratings={label: f"MOS_A_{label}" for label in _ALIGN}),
        b=SideColumns(ratings={label: f"MOS_B_{label}" for label in _ALIGN}),
    ),
    how_to_get="a table as datasets/train/README.md of github.com/KlingAIResearch/VideoAlign describes it",
    notes="Columns path_A, path_B, prompt, VQ, MQ, TA (A, B, same or invalid), as the README and data.py have them, and"
    " MOS_A_VQ, MOS_B_VQ and so on where they are there; frame rates and counts are not needed. Not verified: the"
    " training table itself, which is not public.",
)

FOREIGN: Mapping[str, Benchmark] = MappingProxyType(
    {row.name: row for row in PUBLIC if row.frames_per_second is None}
    | {row.name: row for row in (DESCORE, VIDEOALIGN)}
)
"""By name. Benchmarks whose videos are folders of frames are left out: training reads films."""


def find_layout(name: str) -> Benchmark:
    """A layout by name; an unknown one raises ConfigError with the known."""
    if name in FOREIGN:
        return FOREIGN[name]
    close = nearest(name, [*FOREIGN, RATINGS]) or next((known for known in FOREIGN if known.startswith(name)), None)
    hint = f"; did you mean {close}?" if close else "."
    raise ConfigError(f"unknown layout {name!r}{hint} Known: {', '.join([*FOREIGN, RATINGS])}")
