"""Prompts for clips: their own, those of others, and those made from labels.

`words.json` in the store holds, for each clip without a prompt, each photograph and each shot of a film, the classes of
things that its labels tell, and the label's own name where it is sure. `labels.py` makes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descore.errors import ConfigError
from experiments.footage.examples import PROMPTS
from experiments.generated.clips import Generated
from experiments.generated.store import Split
from experiments.generated.things import Shown, things_in

FILE = "words.json"
SCHEMA = 1

NOTHING = (
    "a video",
    "a short video clip",
    "video",
    "some footage, 4k",
    "high quality video",
    "a beautiful short film, highly detailed",
    "a video of something",
)
"""Prompts that ask for nothing to be seen."""

_FORMS = ("{a}", "a video of {a}", "a photo of {a}", "{a}, 4k", "{a}, highly detailed", "footage of {a}", "film of {a}")
_P_COARSE = 0.4  # of made prompts that name the class although the label is sure


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What labels tell of an item."""

    things: tuple[str, ...]
    """Classes; empty where no label is sure."""
    name: str
    """The label in words, where it is sure; else empty."""


@dataclass(frozen=True)
class Words:
    """Prompts of a store's clips."""

    labels: Mapping[str, Label]
    """By item."""
    prompts: Mapping[Split, tuple[str, ...]]
    """Those of a split's clips, each once, and for training those of `footage` besides."""

    @classmethod
    def open(cls, store: Generated) -> "Words":
        """The words of a store; without `words.json`, no item without a prompt has any. ConfigError for another
        schema."""
        prompts = prompts_of(store)
        return cls(read_labels(store.folder), prompts | {"train": prompts["train"] + PROMPTS["train"]})

    def shown(self, item: str, prompt: str) -> Shown | None:
        """What an item shows, by its own prompt or else by its labels; None where no thing is known."""
        if prompt:
            things = things_in(prompt)
            return Shown(things=things, by_prompt=True) if things else None
        label = self.labels.get(item)
        return Shown(things=label.things, by_prompt=False) if label and label.things else None

    def own_prompt(self, item: str, prompt: str, rng: np.random.Generator) -> str:
        """A prompt that is true of an item: the one that it was generated from, or one made from its labels; empty
        where there is neither."""
        coarse, form = rng.random() < _P_COARSE, _FORMS[int(rng.integers(len(_FORMS)))]
        if prompt:
            return prompt
        label = self.labels.get(item)
        if label is None or not label.things:
            return ""
        return form.format(a=label.things[0] if coarse or not label.name else label.name)

    def other_prompt(self, split: Split, *, own: str, shown: Shown | None, rng: np.random.Generator) -> str:
        """A prompt that is wrong of an item: of another clip, that names no thing which the item may show. Where no
        thing of the item is known, any other prompt."""
        options = [prompt for prompt in self.prompts[split] if prompt != own and _is_wrong(prompt, shown)]
        return options[int(rng.integers(len(options)))] if options else ""


def prompts_of(store: Generated) -> dict[Split, tuple[str, ...]]:
    """The prompts of each split's clips, each once."""
    return {split: tuple(dict.fromkeys(c.prompt for c in own if c.prompt)) for split, own in store.clips.items()}


def _is_wrong(prompt: str, shown: Shown | None) -> bool:
    things = things_in(prompt)
    return shown is None or (bool(things) and all(shown.has(thing) is False for thing in things))


def read_labels(folder: Path) -> dict[str, Label]:
    """The labels in a store, by item; none without the file."""
    path = folder / FILE
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: schema {content.get('schema')}, expected {SCHEMA}; delete it and make it again")
    rows = content["items"].items()
    return {item: Label(things=tuple(row["things"]), name=row["name"]) for item, row in rows}
