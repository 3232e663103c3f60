"""The bundled model and two hand-made features on FETV and on VideoAlign's pairs, and the page of it in docs/.

    python -m experiments.shown_on --data FOLDER [--out runs/shown]

FOLDER holds fetv/ and videoalign/ (see `descore benchmarks fetv`). Nothing was trained or tuned on these clips."""

import argparse
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "report.html"
JUDGES = {
    "sharpness": ["--model", "sharpness"],
    "jerk": ["--model", "jerk"],
    "tiny-off": ["--model", "tiny", "--think", "off"],
    "tiny-on": ["--model", "tiny", "--think", "on"],
}


def descore(*arguments: str | Path) -> None:
    """Run a verb; stop where it stops."""
    subprocess.run([sys.executable, "-m", "descore", *map(str, arguments)], check=True)


def main() -> None:
    """Run, or go on running, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/shown"))
    options = parser.parse_args()
    for benchmark in ("fetv", "videoalign"):
        for name, judge in JUDGES.items():
            root, run = options.data / benchmark, options.out / f"{benchmark}-{name}"
            descore("evaluate", *judge, "--benchmark", benchmark, "--root", root, "--out", run)
    stress = options.out / "stress-tiny"
    if not (stress / "stress.json").is_file():
        descore("stress", "--benchmark", "drawn", "--limit", "12", "--out", stress)
    descore("report", *sorted(options.out.iterdir()), "--out", PAGE)


if __name__ == "__main__":
    main()
