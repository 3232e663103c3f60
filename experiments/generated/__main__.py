"""Decode generated clips into a store of small frames.

    python -m experiments.generated [--clips ../shared/data/generated] --out runs/generated

The store takes 1 GB. A run that was stopped resumes."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from descore.errors import DescoreError
from experiments.generated.clips import Generated
from experiments.generated.store import make_store


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the store, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/generated"), help="folder of generated.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/generated"), help="folder for the store")
    options = parser.parse_args(arguments)
    try:
        make_store(options.clips, options.out, log=lambda line: print(line, file=sys.stderr, flush=True))
        store = Generated.open(options.out)
    except DescoreError as fault:
        raise SystemExit(str(fault)) from None
    except OSError as fault:
        raise SystemExit(f"{options.out}: {fault.strerror or fault}; choose another folder with --out") from fault
    print("\n".join(summary(store)))


def summary(store: Generated) -> Iterator[str]:
    """Lines on the splits of a store and its repositories, with licences."""
    for split, clips in store.clips.items():
        repositories = dict.fromkeys(clip.repository for clip in clips)
        seconds, prompts = sum(clip.times[-1] for clip in clips), sum(bool(clip.prompt) for clip in clips)
        count = len(repositories)
        yield f"{split}: {len(clips)} clips, {seconds:.0f} s, {prompts} with prompts, of {count} repositories"
        for name in repositories:
            yield f"  {name}: {sum(clip.repository == name for clip in clips)}; licence: {store.licences[name]}"
    yield f"The store: {store.folder}"


if __name__ == "__main__":
    main()
