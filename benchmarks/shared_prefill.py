"""K = 8 chains for one clip: one shared prefill against transformers' num_return_sequences, which encodes the clip and
the prompt K times. The aim is to be 1.5 times as fast for prompts of 1,000 tokens or more; the longer the chains, the
less the prompt counts.

Our time includes the K rewards; the other way gives none.

    python -m benchmarks.shared_prefill [--repeats 3]"""

import torch

from benchmarks.measure import environment, interleaved, option_parser
from benchmarks.models import noise_clip, small_model
from descore.model.generation import think_and_score

SAMPLES = 8


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=3).parse_args().repeats
    print(environment())
    model = small_model()
    chat = model.chat
    print(f"{'prompt':>8} {'chain':>6} {'shared':>9} {'repeated':>9} {'ratio':>6}")
    for frames in (96, 160):
        prompts = chat.lay_out_prompts([noise_clip(0, frames=frames)], ["a red ball"])
        for limit in (64, 128):

            def shared(prompts: dict = prompts, limit: int = limit) -> None:
                think_and_score(model, prompts, limit=limit, samples=SAMPLES, temperature=1.0)

            @torch.inference_mode()
            def repeated(prompts: dict = prompts, limit: int = limit) -> None:
                torch.manual_seed(0)
                model.backbone.generate(
                    **prompts,
                    do_sample=True,
                    num_return_sequences=SAMPLES,
                    # equal work: every chain is as long as ours
                    min_new_tokens=limit + 1,
                    max_new_tokens=limit + 1,
                    pad_token_id=chat.pad_id,
                    suppress_tokens=[*chat.forbidden_ids, chat.end_id],
                )

            seconds = interleaved({"shared": shared, "repeated": repeated}, repeats=repeats)
            width = prompts["input_ids"].shape[1]
            ratio = seconds["repeated"] / seconds["shared"]
            own, other = seconds["shared"], seconds["repeated"]
            print(f"{width:>8} {limit:>6} {own:>8.2f}s {other:>8.2f}s {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
