"""`descore rank`: clips of one prompt, best first. Nothing is shown before all are scored."""

from descore.cli import options as opt
from descore.cli.errors import reported_errors


def rank(
    *,
    clips: opt.Clips,
    prompt: opt.Prompt,
    model: opt.Model = "tiny",
    paradigm: opt.Paradigm = None,
    think: opt.Think = None,
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
        from descore.cli.scoring import judge
        from descore.cli.showing import show_ranked

        results = judge(
            [(clip, prompt) for clip in clips],
            model=model,
            paradigm=paradigm.value if paradigm else None,
            device=device,
            batch_size=batch_size,
            think=think.value if think else None,
            samples=samples,
            seed=seed,
            temperature=temperature,
            max_chain_tokens=max_chain_tokens,
        )
        show_ranked(list(results), clips=clips, prompt=prompt, model=model, json=json)
