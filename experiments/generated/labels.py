"""Name the things in clips without a prompt, by their files' names or EfficientNet-lite0's labels.

A class of things has the sum of its labels' probabilities, over a few frames, and is stated where that is sure.

Shapes in names: N frames, L = 1000 labels."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descore.io import atomic_write
from descore.synthetic.prompts import with_article
from experiments.footage.clips import Footage
from experiments.footage.packages import Log
from experiments.generated.clips import Generated
from experiments.generated.store import Frames
from experiments.generated.things import THINGS, class_of_label, things_in, words_of
from experiments.generated.words import FILE, SCHEMA, read_labels
from experiments.grow_tiny.teacher import Teacher

SURE = 0.55
"""Least probability of a class that is stated."""
SURE_LABEL = 0.45
"""Least probability of a label whose own name is used."""
_FRAMES = 4
_OF_ALBUMS = {"buildings": "a building"} | dict.fromkeys(
    ("wild-animals", "animals-of-the-world", "farm-animals"), "an animal"
)
"""What all photographs of an album show."""
_NO_NAMES = frozenset(("a machine",))
"""Classes that a file's name does not tell: `camera_pan` is no camera."""


def label_names() -> list[str]:
    """ImageNet's labels in words, in the order of their numbers."""
    from descore.model import import_torchvision

    import_torchvision()
    from torchvision.models import EfficientNet_B0_Weights

    return list(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


def make_labels(store: Generated, footage: Footage | None, *, log: Log) -> dict[str, Any]:
    """Write the store's words.json, of all items without a prompt. Items that it has are not named again. Returns its
    content."""
    archives = store.folder / "archives"
    teacher, names = Teacher.open(archives), label_names()
    classes = [class_of_label(number, name) for number, name in enumerate(names)]
    items = {item: asdict(label) for item, label in read_labels(store.folder).items()}
    missing = (pair for pair in pictures(store, footage) if pair[0] not in items)
    for number, (item, frames_NHWC) in enumerate(missing):
        items[item] = row_of(item, probabilities(teacher, frames_NHWC), classes, names)
        if number % 100 == 0:
            log(f"labels: {number} items")
    content = {"schema": SCHEMA, "items": items}
    atomic_write(store.folder / FILE, json.dumps(content, indent=1) + "\n")
    return content


def row_of(
    item: str, probability_L: NDArray[np.float32], classes: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """Classes that the item's album or file name tells, or else its labels; and the thing's own name where an album of
    animals or a label is sure of it."""
    class_L = np.array(classes)
    sure = [thing for thing in THINGS if float(probability_L[class_L == thing].sum()) >= SURE]
    things = list(named_by(item)) or sure
    best = int(probability_L.argmax())
    name = names[best].lower() if probability_L[best] >= SURE_LABEL and classes[best] in things else ""
    album, _, file = item.partition(" at ")
    if _OF_ALBUMS.get(album) == "an animal":
        name = " ".join(words_of(spaced(file)))
    return {"things": things, "name": with_article(name) if name and not name.endswith("s") else name}


def named_by(item: str) -> tuple[str, ...]:
    """Classes that the name of an item's album or file tells."""
    album, _, photograph = item.partition(" at ")
    if album in _OF_ALBUMS:
        return (_OF_ALBUMS[album],)
    _, _, file = item.rpartition("__")
    return tuple(thing for thing in things_in(spaced(photograph or file)) if thing not in _NO_NAMES)


def spaced(name: str) -> str:
    """A file's name as words: 'greatPyramidOfGiza' is 'great Pyramid Of Giza'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", name)


def pictures(store: Generated, footage: Footage | None) -> Iterator[tuple[str, Frames]]:
    """Each item that has no prompt, with a few frames of it."""
    for clips in store.clips.values():
        for clip in clips:
            if not clip.prompt:
                yield clip.name, _some(store.frames(clip))
    if footage is not None:
        for photograph in footage.photographs:
            yield f"{photograph.album} at {photograph.name}", np.array(footage.picture(photograph)[None])
        for shot in footage.shots["train"]:
            yield f"{shot.film} from {shot.first}", _some(footage.film_frames(shot.film)[shot.first : shot.last + 1])


def _some(frames_NHWC: Frames) -> Frames:
    return np.array(frames_NHWC[np.linspace(0, len(frames_NHWC) - 1, _FRAMES).round().astype(int)])


def probabilities(teacher: Teacher, frames_NHWC: Frames) -> NDArray[np.float32]:
    """(L,): of each label, mean over the frames."""
    _, logits_NLHW = teacher.stages(frames_NHWC)
    return np.asarray(logits_NLHW.mean(dim=(2, 3)).softmax(dim=1).mean(dim=0).numpy(), np.float32)
