"""Where a killed run of stage 2 goes on: a checkpoint-N folder with all that the next step depends on.

    learned.safetensors    the weights that learn
    optimizer.pt           the optimizer's and the schedule's state
    trainer_state.json     how many steps were done of how many, and what was tallied since the last line of metrics

There are no random states: whatever is drawn is drawn from the seed and the step. Knows files; knows nothing of what
is learned."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from descore.model.descore_model import DescoreModel
from descore.training.tally import Tally, as_record
from descore.training.trainable import learned_weights
from descore.training.trainer import LEARNED_FILE, last_checkpoint, load_learned

OPTIMIZER_FILE, STATE_FILE = "optimizer.pt", "trainer_state.json"


def save_state(
    out: Path, *, model: DescoreModel, stateful: dict[str, Any], tally: Tally, step: int, of: int, keep: int
) -> None:
    """Write checkpoint-`step`, whole or not at all, and leave no more than `keep` of them. `stateful`: by name, what
    has a state_dict."""
    folder = out / f"checkpoint-{step}"
    aside = out / f"{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(
        {name: weight.detach().contiguous() for name, weight in learned_weights(model).items()}, aside / LEARNED_FILE
    )
    torch.save({name: one.state_dict() for name, one in stateful.items()}, aside / OPTIMIZER_FILE)
    state = {"global_step": step, "max_steps": of, "tally": as_record(tally)}
    (aside / STATE_FILE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    whole = [p for p in out.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdecimal()]
    for old in sorted(whole, key=lambda p: int(p.name.removeprefix("checkpoint-")))[:-keep]:
        shutil.rmtree(old)


def load_state(out: Path, *, model: DescoreModel, stateful: dict[str, Any]) -> tuple[int, Tally]:
    """How many steps were done, and what is tallied, by the last checkpoint; 0 and nothing where there is none."""
    folder = last_checkpoint(out)
    if folder is None:
        return 0, Tally()
    load_learned(model, folder / LEARNED_FILE)
    states = torch.load(folder / OPTIMIZER_FILE, map_location=model.device, weights_only=True)
    for name, one in stateful.items():
        one.load_state_dict(states[name])
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return int(state["global_step"]), Tally(**state["tally"])
