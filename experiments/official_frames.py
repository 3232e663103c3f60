"""Whether a converted checkpoint sees the frames that the official code sees.

    python -m experiments.official_frames CLIP... [--out experiments/official_frames.json]

Makes a checkpoint in the official form, with random weights and the processor bounds of Qwen3-VL's release, converts
it, and scores each file in float32:

    official   read with qwen-vl-utils as the official `inference.py` does, by each of its readers that is installed,
               laid out by transformers' processor alone; backbone and head are called directly
    descore    `Scorer.score` of the converted checkpoint
    uniform    the same with the project's own sampling rule, for comparison

Needs `pip install qwen-vl-utils==0.0.14` and torchcodec or decord. Fails if any reward differs by more than 1e-4."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descore import Scorer
from descore.io import atomic_write
from descore.model import import_torchvision
from descore.model.convert_official import SAMPLING, convert_official
from descore.model.modeling import open_backbone
from descore.model.official_layout import OFFICIAL_HEAD_FILE, OFFICIAL_QUERY_TOKEN
from descore.model.small import small_config, small_processor
from descore.video.reader import read_clip
from experiments.harness import quiet

PACKAGE, VERSION = "qwen-vl-utils", "0.0.14"
READERS = ("torchcodec", "decord")
TOLERANCE = 1e-4
RUBRIC = "Judge how well the video fits the text.\nText: {prompt}\nVideo: {video}\nThink first, then score."
PROMPT = "a person walks along a street in the evening"
LAYOUT = "chain and query in the user's turn"
"""That of the official `inference.py`."""
WIDTH = 64
RELEASED_SIZE = {"shortest_edge": 4096, "longest_edge": 25_165_824}
"""Pixels of a whole video, as Qwen3-VL's release bounds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Official:
    """A checkpoint in the official form."""

    folder: Path
    backbone: Any
    processor: Any
    head_KD: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One clip and one reader of the official code."""

    clip: str
    reader: str
    frames: int
    size: tuple[int, int]
    """Width and height."""
    pixels_apart: int
    """Levels, the largest difference."""
    official: float
    descore: float
    uniform: float
    """Rewards."""

    @property
    def apart(self) -> float:
        """The difference of the rewards."""
        return abs(self.descore - self.official)


def make_official(folder: Path) -> Official:
    """Random weights, enlarged until rewards of clips differ by some units."""
    torch.manual_seed(0)
    processor = small_processor([RUBRIC, PROMPT, "<0.5 seconds>"], vocabulary=400, patch=16)
    processor.video_processor.size = RELEASED_SIZE
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [OFFICIAL_QUERY_TOKEN]})
    config = small_config(processor, vocabulary=400, width=WIDTH, layers=2, vision_width=48, vision_layers=2)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    config.text_config.max_position_embeddings = 25_600
    backbone = open_backbone(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.mul_(3.0)
    backbone.resize_token_embeddings(len(processor.tokenizer))
    backbone.save_pretrained(folder)
    processor.save_pretrained(folder)
    head_KD = torch.randn(1, WIDTH)
    torch.save({"rm_head.weight": head_KD}, folder / OFFICIAL_HEAD_FILE)
    return Official(folder=folder, backbone=backbone, processor=processor, head_KD=head_KD)


def read_officially(path: Path, *, reader: str) -> tuple[Tensor, dict[str, Any]]:
    """Frames (T, 3, H, W) in float32 and their metadata, as `process_video` and `inference.py` ask for them."""
    qwen: Any = import_module("qwen_vl_utils.vision_process")
    qwen.FORCE_QWENVL_VIDEO_READER = reader
    qwen.get_video_reader_backend.cache_clear()
    asked = {"video": str(path), "min_pixels": 3136, "max_pixels": 200_704, "fps": 2}
    frames_TCHW, metadata = qwen.fetch_video(asked, image_patch_size=16, return_video_metadata=True)
    return frames_TCHW, metadata


@torch.no_grad()
def official_reward(official: Official, frames_TCHW: Tensor, metadata: dict[str, Any], *, prompt: str) -> float:
    """The head at the query's token, behind an empty chain."""
    processor = official.processor
    before, after = RUBRIC.replace("{prompt}", prompt).split("{video}")
    parts = (
        {"type": "text", "text": before},
        {"type": "video"},
        {"type": "text", "text": after + OFFICIAL_QUERY_TOKEN},
    )
    text = processor.apply_chat_template([{"role": "user", "content": list(parts)}], tokenize=False)
    # transformers 4 replaced the whole triple by frames that have wrappers of their own; transformers 5 keeps it.
    text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    inputs = processor(
        text=[text],
        videos=[frames_TCHW],
        videos_kwargs={"video_metadata": [metadata], "do_sample_frames": False, "cap_pixels_per_frame": False},
        add_special_tokens=False,
        return_tensors="pt",
    )
    hidden_TD = official.backbone.model(**inputs, use_cache=False).last_hidden_state[0]
    query_id = processor.tokenizer.convert_tokens_to_ids(OFFICIAL_QUERY_TOKEN)
    query_D = hidden_TD[inputs["input_ids"][0] == query_id].mean(dim=0)
    return float(official.head_KD[0] @ query_D)


def compare(paths: Sequence[Path], *, readers: Sequence[str]) -> list[Row]:
    """A row for each clip and reader."""
    with tempfile.TemporaryDirectory() as temporary:
        official = make_official(Path(temporary) / "official")
        ours = Path(temporary) / "converted"
        convert_official(official.folder, ours, rubric=RUBRIC, layout=LAYOUT)
        scorer = Scorer.from_pretrained(ours, device="cpu")
        return [_row(path, reader, official=official, scorer=scorer) for path in paths for reader in readers]


def _row(path: Path, reader: str, *, official: Official, scorer: Scorer) -> Row:
    frames_TCHW, metadata = read_officially(path, reader=reader)
    score = scorer.score(path, prompt=PROMPT, think="off")
    clip = score.clip
    theirs: NDArray[Any] = frames_TCHW.permute(0, 2, 3, 1).numpy()
    same = theirs.shape == clip.frames.shape and clip.frame_numbers == tuple(map(int, metadata["frames_indices"]))
    uniform = read_clip(path, sampling=SAMPLING.model_copy(update={"rule": "uniform"}))
    return Row(
        clip=path.name,
        reader=reader,
        frames=len(clip.frames),
        size=clip.size,
        pixels_apart=int(np.abs(theirs - clip.frames).max()) if same else 255,
        official=official_reward(official, frames_TCHW, metadata, prompt=PROMPT),
        descore=score.reward,
        uniform=scorer.score(uniform, prompt=PROMPT, think="off").reward,
    )


def _installed_readers(wanted: Sequence[str]) -> list[str]:
    """ImportError, with what to do, if the package or all of its readers are missing."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        found = None
    readers = [name for name in wanted if _imports(name)]
    if found != VERSION or not readers:
        raise ImportError(
            f"found {PACKAGE} {found or 'missing'}, readers {', '.join(readers) or 'missing'}; "
            f"expected: pip install {PACKAGE}=={VERSION} and {' or '.join(wanted)}"
        )
    return readers


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except (ImportError, OSError, RuntimeError):  # torchcodec without FFmpeg's libraries raises the last
        return False
    return True


def _print_table(rows: Sequence[Row]) -> None:
    names = ("official", "descore", "uniform", "apart", "pixels")
    print(f"{'clip':18} {'reader':10} {'frames':>12} " + " ".join(f"{name:>9}" for name in names))
    for row in rows:
        shape = f"{row.frames} x {row.size[0]}x{row.size[1]}"
        rewards = f"{row.official:9.5f} {row.descore:9.5f} {row.uniform:9.5f}"
        print(f"{row.clip:18} {row.reader:10} {shape:>12} {rewards} {row.apart:9.1e} {row.pixels_apart:9}")


def main() -> None:
    """Compare, print a table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--reader", choices=READERS, help="of the official code; default: each that is installed")
    parser.add_argument("--out", type=Path, help="write the rows here, as JSON")
    options = parser.parse_args()
    try:
        readers = _installed_readers([options.reader] if options.reader else READERS)
    except ImportError as error:
        sys.exit(str(error))
    quiet()
    import_torchvision()
    rows = compare(options.clips, readers=readers)
    _print_table(rows)
    if options.out:
        packages = {name: version(name) for name in ("torch", "transformers", "av", PACKAGE, *readers)}
        record = {"packages": packages, "rows": [{**asdict(row), "apart": row.apart} for row in rows]}
        atomic_write(options.out, json.dumps(record, indent=1) + "\n")
    worst = max(row.apart for row in rows)
    if worst > TOLERANCE:
        sys.exit(f"a reward differs by {worst:.1e}; expected at most {TOLERANCE:g}")


if __name__ == "__main__":
    main()
