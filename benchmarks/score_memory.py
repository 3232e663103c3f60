"""Peak memory of `descore score --json` over many clips: it must not grow with their number.

The bundled model scores one bundled clip again and again without thinking, in a process of its own for each number.

    python -m benchmarks.score_memory [--clips 100 2000] [--verb score]"""

import os
import subprocess
import sys
import tempfile
from importlib.resources import files

from benchmarks.measure import environment, option_parser, print_row

CLIP = "rabbit.mp4"


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--verb", choices=["score", "rank"], default="score")
    options = parser.parse_args()
    print(environment())
    print_row(["clips", "lines", "peak MiB"], width=12)
    for clips in options.clips:
        lines, peak = peak_memory(options.verb, clips)
        print_row([f"{clips:,}", f"{lines:,}", f"{peak:,.0f}"], width=12)


def peak_memory(verb: str, clips: int) -> tuple[int, float]:
    """The lines that one process prints for so many clips, and the most memory that it held, in MiB."""
    clip = str(files("descore") / "bundled" / "clips" / CLIP)
    command = [sys.executable, "-m", "descore", verb, *[clip] * clips, "--prompt", "a rabbit", "--think", "off"]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([*command, "--json", "--device", "cpu"], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"descore {verb} ended with {process.returncode}"
        out.seek(0)
        return len(out.readlines()), usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
