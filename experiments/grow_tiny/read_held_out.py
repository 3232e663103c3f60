"""How near the lesson in reading brings prompts that no lesson has, beside MiniLM.

    python -m experiments.grow_tiny.read_held_out --run runs/tiny --footage runs/footage --generated runs/generated

Prints, for the prompts of generated clips of each split, the correlation of the cosines of all their pairs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from descore.model.modeling import DescoreModel
from experiments.generated.baselines import MiniLm
from experiments.generated.clips import Generated
from experiments.generated.words import prompts_of
from experiments.grow_tiny.lessons import NO_CLIP
from experiments.grow_tiny.meanings import Embed
from experiments.grow_tiny.reading import ReadHeads, Reading, collate_readings, prompt_states

MOST = 100
"""Prompts of a split, of which all pairs are taken."""


@torch.no_grad()
def correlation(model: DescoreModel, head: ReadHeads, texts: Sequence[str], embed: Embed) -> float:
    """Of the cosines of any two of these texts, as the head has them, with those of their vectors."""
    pairs = zip(texts, embed(texts), strict=True)
    readings = [Reading(text=text, vector_D=vector_D, picture=NO_CLIP, nearness=0) for text, vector_D in pairs]
    batch = collate_readings(readings, model=model)
    states_BF, _ = prompt_states(model, batch)
    upper = torch.triu_indices(len(texts), len(texts), offset=1).unbind()
    both = torch.stack([head.cosines(states_BF)[upper], batch["cosine_BB"][upper]])
    return float(both.corrcoef()[0, 1])


def main() -> None:
    """Print a line for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--footage", type=Path, default=Path("runs/footage"))
    parser.add_argument("--generated", type=Path, default=Path("runs/generated"))
    options = parser.parse_args()
    model = DescoreModel.from_pretrained(options.run / "start", device="cpu").eval()
    learned = torch.load(options.run / "read" / "read.pt", weights_only=True)
    head = ReadHeads(model.query.shape[0])
    model.backbone.load_state_dict(learned["backbone"])
    head.load_state_dict(learned["answers"])
    embed = MiniLm(options.footage / "archives").embed
    for split, prompts in prompts_of(Generated.open(options.generated)).items():
        print(f"{split}: {correlation(model, head, prompts[:MOST], embed):.3f} (n = {len(prompts[:MOST])} prompts)")


if __name__ == "__main__":
    main()
