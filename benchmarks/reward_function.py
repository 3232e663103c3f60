"""How much a reward on tensors in memory saves against writing an mp4 for each clip and reading it again, as trainers
must whose reward takes paths (DanceGRPO with VideoAlign).

Draws clips, as a pipeline decodes them: float32 in [0, 1], (B, T, C, H, W). Both ways give the same model the same
frames and prompts, in turn, in one process:

    tensors   `RewardFunction` on the batch
    mp4       rounded to bytes, each clip encoded to a temporary H.264 file of x264's default quality, and
              `RewardFunction` on the paths

Prints the seconds of a batch for each, their ratio, and by how many of the checkpoint's deviations the rewards differ,
at the median and at most: what encoding changes. "off" reads the reward at once, "on" writes chains first.
"prepared" is all that comes before the model: choosing and scaling, or also writing and reading.

    python -m benchmarks.reward_function [--repeats 3] [--clips 8] [--frames 81]"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import environment, interleaved, option_parser
from descore.rewards.frames import FrameFormat, prepare, resize, split_videos
from descore.rewards.function import RewardFunction, Rewards
from descore.scorer import Scorer
from descore.synthetic.splits import Split, draw_plan, plan_example
from descore.types import Think
from descore.video.encoder import write_mp4

FPS = 16
SIZES = ((480, 832), (256, 256))
"""Height and width: a usual size of generated clips, and that of the demo's."""
CHAIN = 128
"""Tokens that a chain may have: most of the bundled model's end before."""
COLUMNS = "{:>9} {:>9} {:>12} {:>9} {:>6} {:>9} {:>9}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Generated clips and their prompts."""

    videos: Tensor
    """(B, T, C, H, W), float32 in [0, 1]."""
    prompts: Sequence[str]

    def write(self, folder: Path) -> list[Path]:
        """Encode each clip to a file, as a pipeline exports it."""
        paths = [folder / f"{index}.mp4" for index in range(len(self.prompts))]
        for path, video in zip(paths, self.videos, strict=True):
            frames_TCHW = (video * 255).round().to(torch.uint8)
            write_mp4(path, frames_TCHW.permute(0, 2, 3, 1).numpy(), fps=FPS)
        return paths


def drawn_batch(count: int, *, frames: int, height: int, width: int) -> Batch:
    """Clips of the drawn world at this size."""
    videos, prompts = [], []
    for index in range(count):
        example = draw_plan(plan_example(Split.IN_DOMAIN, index), size=(128, 128), frames=frames)
        pixels_TCHW = torch.from_numpy(np.ascontiguousarray(example.clip.frames)).permute(0, 3, 1, 2)
        videos.append(resize(pixels_TCHW, size=(width, height)).float() / 255)
        prompts.append(example.prompt)
    return Batch(videos=torch.stack(videos), prompts=prompts)


def rewards_by_tensors(reward: RewardFunction, batch: Batch) -> Rewards:
    """Straight from memory."""
    return reward(videos=batch.videos, prompts=batch.prompts, fps=FPS, layout="BTCHW", range=(0, 1))


def rewards_by_files(reward: RewardFunction, batch: Batch) -> Rewards:
    """By way of the disk."""
    with tempfile.TemporaryDirectory() as folder:
        return reward(videos=batch.write(Path(folder)), prompts=batch.prompts)


def prepare_all(reward: RewardFunction, batch: Batch, *, files: bool) -> None:
    """All that comes before the model."""
    model = reward.scorer.model
    form, sampling = FrameFormat(range=(0, 1)), model.settings.sampling
    with tempfile.TemporaryDirectory() as folder:
        videos = batch.write(Path(folder)) if files else batch.videos
        for index, video in enumerate(split_videos(videos, layout="BTCHW")):
            prepare(video, source=str(index), fps=FPS, form=form, sampling=sampling, device=model.device)


def print_ratio(size: str, what: str, ways: dict[str, Callable[[], object]], *, repeats: int, apart: str = "") -> None:
    """Measure two ways, tensors first, and print a row."""
    tensors, files = interleaved(ways, repeats=repeats).values()
    cells = apart.split() or ["", ""]
    row = (size, what, f"{tensors:.2f}", f"{files:.2f}", f"{files / tensors:.2f}", *cells)
    print(COLUMNS.format(*row), flush=True)


def measure(scorer: Scorer, batch: Batch, *, repeats: int) -> None:
    """Print the rows of one size."""
    height, width = batch.videos.shape[3:]
    size = f"{width}x{height}"
    reward = RewardFunction(scorer, think="off")
    ways = {way: lambda files=way == "mp4": prepare_all(reward, batch, files=files) for way in ("tensors", "mp4")}
    print_ratio(size, "prepared", ways, repeats=repeats)
    thinks: tuple[Think, ...] = ("off", "on")
    for think in thinks:
        reward = RewardFunction(scorer, think=think, max_chain_tokens=CHAIN)
        a, b = rewards_by_tensors(reward, batch).rewards, rewards_by_files(reward, batch).rewards
        differences = (a - b).abs().tolist()
        apart = f"{median(differences):.3f} {max(differences):.3f}"
        ways = {
            "tensors": lambda reward=reward: rewards_by_tensors(reward, batch),
            "mp4": lambda reward=reward: rewards_by_files(reward, batch),
        }
        print_ratio(size, think, ways, repeats=repeats, apart=apart)


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("--clips", type=int, default=8, help="clips in a batch (default 8)")
    parser.add_argument("--frames", type=int, default=81, help=f"frames of a clip, at {FPS} a second (default 81)")
    options = parser.parse_args()
    print(environment())
    print(f"tiny, batches of {options.clips} clips of {options.frames} frames; seconds, and deviations apart")
    print(COLUMNS.format("clips", "thinking", "tensors (s)", "mp4 (s)", "ratio", "median", "most"))
    scorer = Scorer.from_pretrained("tiny", device="cpu")
    for height, width in SIZES:
        batch = drawn_batch(options.clips, frames=options.frames, height=height, width=width)
        measure(scorer, batch, repeats=options.repeats)


if __name__ == "__main__":
    main()
