"""One pass against two: score on the cache that thinking left, or encode video, prompt, chain and query again.

Both write the same chains; what is compared is the whole job, thinking and scoring, in time and in memory at the peak,
and the scoring alone. The two-pass way here still shares one copy of the weights; a second engine would add a whole
model to its memory.

    python benchmarks/one_pass.py [--repeats 3]"""

import argparse

from _bench import added_peak, bench_model, environment, interleaved, noise_clip

from descore.model.generation import score_chains, think_and_score

BATCH = 2
FRAMES = {256: 16, 1024: 64}
"""Tokens of the user turn, about, and the frames of 64x64 that make them."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(environment())
    model = bench_model()
    print(f"batch {BATCH}; 'scoring' is what comes on top of the chains")
    header = ("prompt", "chain", "one pass", "two passes", "ratio", "scoring", "MiB one", "MiB two", "ratio")
    print(" ".join(f"{name:>10}" for name in header))
    for frames in FRAMES.values():
        clips = [noise_clip(i, frames=frames) for i in range(BATCH)]
        prompts = model.chat.lay_out_prompts(clips, ["a red ball"] * BATCH)
        for limit in (32, 128):

            def one_pass(prompts: dict = prompts, limit: int = limit) -> list:
                return think_and_score(model, prompts, limit=limit)

            def two_passes(prompts: dict = prompts, limit: int = limit) -> None:
                chains = [row[0].chain for row in one_pass(prompts, limit)]
                score_chains(model, prompts, chains)

            chains = [row[0].chain for row in one_pass()]

            def scoring_again(prompts: dict = prompts, chains: list = chains) -> None:
                score_chains(model, prompts, chains)

            ways = {"one": one_pass, "two": two_passes, "again": scoring_again}
            seconds = interleaved(ways, repeats=repeats)
            memory = {name: added_peak(way) for name, way in (("one", one_pass), ("two", two_passes))}
            row = (
                f"{prompts['input_ids'].shape[1]}",
                f"{limit}",
                f"{seconds['one']:.2f}s",
                f"{seconds['two']:.2f}s",
                f"{seconds['two'] / seconds['one']:.2f}",
                f"{seconds['again']:.2f}s",
                f"{memory['one']:.0f}",
                f"{memory['two']:.0f}",
                f"{memory['two'] / memory['one']:.2f}",
            )
            print(" ".join(f"{cell:>10}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
