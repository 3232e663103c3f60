"""Clips of 8 frames that the drawn world paints in a second on one core, averaged over scenes of every kind. The aim is
at least 200 at 64x64 and 80 at 128x128.

python -m benchmarks.drawing [--clips 400]"""

import os
import platform
import time
from importlib.metadata import version

import numpy as np

from benchmarks.measure import option_parser
from descore.synthetic.rendering import DRAWN_FRAMES, render_scene
from descore.synthetic.scene import Scene, random_scene


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--clips", type=int, default=400)
    clips = parser.parse_args().clips
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pillow"))
    print(f"1 of {os.cpu_count()} cores {platform.machine()}, {packages}")
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(clips)]
    print(f"{'side':>6} {'clips/s':>9}")
    for side in (64, 128):
        print(f"{side:>6} {clips / seconds(scenes, side=side):>9.0f}")


def seconds(scenes: list[Scene], *, side: int) -> float:
    """Processor seconds for painting all scenes; other work on the machine does not count."""
    start = time.process_time()
    for seed, scene in enumerate(scenes):
        render_scene(scene, rng=np.random.default_rng(seed), frames=DRAWN_FRAMES, height=side, width=side)
    return time.process_time() - start


if __name__ == "__main__":
    main()
