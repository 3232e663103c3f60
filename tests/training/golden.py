"""The golden run of `descore train sft`: a short curve that shows a change of any step of it.

    python -m tests.training.golden

records it anew, beside what it was recorded with. The reason belongs into the commit's message."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.training.conftest import curve, make_config, make_data

from descore.training.records import versions
from descore.training.sft import train_sft

RECORD = Path(__file__).with_name("golden_sft.json")
PARTS = (
    "trainable.merger.mode=full",
    "trainable.vision_tower.mode=lora",
    "optim.accumulate=2",
    "optim.weight_decay=0.1",
)


def golden_curve(folder):
    """Losses of twelve updates: all parts learn, each in a way of its own."""
    train_sft(make_config(folder, folder / "golden", *PARTS, "optim.steps=12"))
    return list(curve(folder / "golden").values())


def main():
    with TemporaryDirectory() as folder:
        record = {"environment": versions(), "losses": golden_curve(make_data(Path(folder)))}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
