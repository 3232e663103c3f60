"""`descore score`: think about clips, and score them. Results are shown as they come."""

from descore.cli import options as opt
from descore.cli.errors import reported_errors


def score(
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
    """Think about clips of one prompt, and score each of them."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import judge
        from descore.cli.showing import show_each

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
        show_each(results, clips=clips, prompt=prompt, model=model, json=json)
