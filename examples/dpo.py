"""DPO of a video generator on its own clips, paired by the reward model.

    python -m examples.dpo --generator runs/generator/model --prompts prompts.txt --out runs/dpo

Makes clips, scores and pairs them with descore, and trains the generator to make the chosen clip of a pair more likely
than the rejected one (Diffusion-DPO, arXiv 2311.12908). `make_clips` and `errors` are the only places that know the
generator: put yours there. For a second round, run it again with --generator runs/dpo/model."""

import argparse
from pathlib import Path

import numpy as np
import torch
from experiments.generator import flow, words
from experiments.generator.model import Generator
from experiments.generator.rewards import enlarged_frames
from experiments.generator.world import FPS
from experiments.harness import one_line_errors, positive
from torch import Tensor

from descore import Scorer
from descore.data.write import table_writer
from descore.rewards import preference_pairs, read_scored, write_scores
from descore.video.encoder import write_mp4


def make_clips(generator: Generator, prompts: list[str], folder: Path) -> Path:
    """Clips as mp4, their frames beside them, and a table. Without guidance, as the weights in training make them."""
    folder.mkdir(parents=True)
    with table_writer(folder / "clips.csv", ("video", "prompt")) as write:
        for number, frames in enumerate(flow.generate(generator, prompts, list(range(len(prompts))), guidance=1)):
            write_mp4(folder / f"{number:04d}.mp4", enlarged_frames(frames), fps=int(FPS), options={"crf": "8"})
            np.save(folder / f"{number:04d}.npy", frames)
            write({"video": f"{number:04d}.mp4", "prompt": prompts[number]})
    return folder / "clips.csv"


def errors(generator: Generator, clips: Tensor, asked: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The flow's squared error (B), a mean over each clip's values."""
    return flow.flow_errors(generator, clips, asked, sigma_B=sigma, noise_BCTHW=noise)


@one_line_errors()
def main() -> None:
    """Make clips, pair them, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="a prompt each line")
    parser.add_argument("--clips", type=positive, default=8, help="of each prompt (default 8)")
    parser.add_argument("--model", default="tiny", help="reward model: a checkpoint, or tiny")
    parser.add_argument("--steps", type=positive, default=50, help="updates (default 50)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    generator, reference = Generator.load(options.generator), Generator.load(options.generator)
    lines = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    table = make_clips(generator, [line for line in lines for _ in range(options.clips)], options.out / "clips")
    write_scores(table, table.with_name("scores.csv"), scorer=Scorer.from_pretrained(options.model))
    pairs = preference_pairs(read_scored(table.with_name("scores.csv"))).pairs
    if not pairs:
        raise SystemExit("error: no two clips of a prompt have unlike rewards, so there is no pair; try more --clips")
    print(f"{len(pairs)} pairs of {len(lines)} prompts")
    optimizer, rng = torch.optim.AdamW(generator.parameters(), lr=2e-5), torch.Generator().manual_seed(0)
    for step in range(options.steps):
        batch = [pairs[index] for index in torch.randint(len(pairs), (8,), generator=rng)]
        sides = [pair.chosen for pair in batch] + [pair.rejected for pair in batch]
        clips = flow.to_values([np.load(Path(side.video).with_suffix(".npy")) for side in sides])
        asked, sigma = words.read_prompts([pair.prompt for pair in batch] * 2), flow.random_sigmas(8, rng).repeat(2)
        noise = torch.randn(clips[:8].shape, generator=rng).repeat(2, 1, 1, 1, 1)  # both sides have the same
        before = errors(reference, clips, asked, sigma, noise).detach()
        chosen, rejected = (errors(generator, clips, asked, sigma, noise) - before).chunk(2)
        loss = -torch.nn.functional.logsigmoid(-1000 * (chosen - rejected)).mean()  # a beta of 2,000, halved
        loss.backward()
        optimizer.step(), optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss:.3f}, chosen the more likely in {(chosen < rejected).float().mean():.0%}")
    generator.save(options.out / "model")


if __name__ == "__main__":
    main()
