"""One pass against two: score on the cache that thinking left, or encode video, prompt, chain and query again.

Both write the same chains. Compared are the time and peak memory of thinking and scoring together, and the time of
scoring alone. The two-pass way here shares one copy of the weights; a second engine would add a whole model.

    python -m benchmarks.one_pass [--repeats 3]"""

from benchmarks.measure import added_peak, environment, interleaved, option_parser, print_row
from benchmarks.models import noise_clip, small_model
from descore.model.generation import score_chains, think_and_score

BATCH = 2
FRAMES = {256: 16, 1024: 64}
"""By approximate tokens of the user turn, the number of 64x64 frames."""


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=3).parse_args().repeats
    print(environment())
    model = small_model()
    print(f"batch {BATCH}; 'scoring' is what comes on top of the chains")
    header = ("prompt", "chain", "one pass", "two passes", "ratio", "scoring", "MiB one", "MiB two", "ratio")
    print_row(header, width=10)
    for frames in FRAMES.values():
        clips = [noise_clip(i, frames=frames) for i in range(BATCH)]
        prompts = model.chat.lay_out_prompts(clips, ["a red ball"] * BATCH)
        for limit in (32, 128):

            def one_pass(prompts: dict = prompts, limit: int = limit) -> list:
                return think_and_score(model, prompts, limit=limit)

            def two_passes(prompts: dict = prompts, limit: int = limit) -> None:
                chains = [row[0].token_ids for row in one_pass(prompts, limit)]
                score_chains(model, prompts, chains)

            chains = [row[0].token_ids for row in one_pass()]

            def scoring_again(prompts: dict = prompts, chains: list = chains) -> None:
                score_chains(model, prompts, chains)

            variants = {"one": one_pass, "two": two_passes, "again": scoring_again}
            seconds = interleaved(variants, repeats=repeats)
            memory = {name: added_peak(variant) for name, variant in (("one", one_pass), ("two", two_passes))}
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
            print_row(row, width=10)


if __name__ == "__main__":
    main()
