"""`descore compare`: how probably people prefer one clip to another of the same prompt."""

from typing import Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors


def compare(
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A video file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same prompt.")],
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.Paradigm = None,
    think: opt.Think = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    device: opt.Device = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Say which of two clips of one prompt people would prefer, and how probably."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import judge
        from descore.cli.showing import show_compared

        results = judge(
            [(a, prompt), (b, prompt)],
            model=model,
            paradigm=paradigm.value if paradigm else None,
            device=device,
            batch_size=2,
            think=think.value if think else None,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        show_compared(list(results), clips=(a, b), prompt=prompt, model=model, json=json)
