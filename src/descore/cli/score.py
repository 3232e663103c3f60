"""`descore score`, `descore compare` and `descore rank`: score clips of one prompt."""

from typing import Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors


def score(
    *,
    clips: opt.Clips,
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Write a chain of thought about each clip of one prompt, and score it."""
    with reported_errors(debug=debug):
        from descore.cli.output import print_scores
        from descore.cli.scoring import score_clips

        results = score_clips(
            [(clip, prompt) for clip in clips],
            model=model,
            paradigm=paradigm,
            device=device,
            batch_size=batch_size,
            think=think,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        print_scores(results, clips=clips, prompt=prompt, model=model, json=json)


def rank(
    *,
    clips: opt.Clips,
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Score clips of one prompt, and list them best first."""
    with reported_errors(debug=debug):
        from descore.cli.output import print_ranking
        from descore.cli.scoring import score_clips

        results = score_clips(
            [(clip, prompt) for clip in clips],
            model=model,
            paradigm=paradigm,
            device=device,
            batch_size=batch_size,
            think=think,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        print_ranking(results, clips=clips, prompt=prompt, model=model, json=json)


def compare(
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A video file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same prompt.")],
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    temperature: opt.Temperature = None,
    max_chain_tokens: opt.MaxChainTokens = None,
    device: opt.Device = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Predict which of two clips of one prompt people prefer, and how probably."""
    with reported_errors(debug=debug):
        from descore.cli.output import print_comparison
        from descore.cli.scoring import score_clips

        results = score_clips(
            [(a, prompt), (b, prompt)],
            model=model,
            paradigm=paradigm,
            device=device,
            batch_size=2,
            think=think,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        print_comparison(list(results), clips=(a, b), prompt=prompt, model=model, json=json)
