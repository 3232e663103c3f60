"""The options that several verbs share. Nothing but Typer is imported, so that --help is quick."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def _not_empty(prompt: str | None) -> str | None:
    if prompt is not None and not prompt.strip():
        raise typer.BadParameter("the prompt is empty; give the text that the video was generated from")
    return prompt


Clips = Annotated[list[str], typer.Argument(metavar="CLIP", help="Video files: mp4, mov, mkv, webm, avi, gif.")]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="CLIP...|TABLE|FOLDER",
        help="Video files (mp4, mov, mkv, webm, avi, gif); or one table with the columns prompt, video or prompt, "
        "video_a, video_b; or one folder.",
    ),
]
RankedClips = Annotated[
    list[str],
    typer.Argument(metavar="CLIP...|TABLE", help="Video files; or one scored table, as descore score TABLE writes it."),
]
RankedBy = Annotated[
    str | None,
    typer.Option("--by", help="Of a scored table: a named dimension or a mark in place of the reward."),
]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="The text they were generated from.", callback=_not_empty)]
PromptOfAll = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        help="The text that all clips were generated from. Not for a table with a column prompt, nor for a folder with "
        "a text file beside each clip (clip.mp4, clip.txt).",
        callback=_not_empty,
    ),
]
Model = Annotated[str, typer.Option("--model", "-m", help="A checkpoint: folder, hub id, or the bundled 'tiny'.")]
ParadigmChoice = Annotated[
    Literal["descore", "discriminative", "generative"] | None,
    typer.Option(
        "--paradigm",
        help="'descore' reads the reward behind the chain, 'discriminative' without one, 'generative' takes the "
        "overall score that the chain ends with: so any checkpoint judges, and a plain backbone too. Default: as the "
        "checkpoint says.",
    ),
]
Rubric = Annotated[
    str | None,
    typer.Option(
        "--rubric",
        help="Judge as a released model does, by its own text and answers: 'videoscore2', 'unifiedreward', "
        "'unifiedreward2', and for compare 'unifiedreward-pair', 'unifiedreward-think'; or by a .toml file of that "
        "form (docs/models.md). The model is then generative.",
    ),
]
Quantize = Annotated[
    Literal["8bit", "4bit"] | None,
    typer.Option(
        "--quantize",
        help="Hold the language model's weights in so many bits, by bitsandbytes (docs/backbones.md).",
    ),
]
ThinkChoice = Annotated[
    Literal["on", "off"] | None,
    typer.Option(
        "--think",
        help="Write a chain of thought first, or score at once. Default: on; off for a model trained without chains.",
    ),
]
Samples = Annotated[int, typer.Option("--samples", "-k", min=1, help="Chains per clip; several give a deviation.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same chains.")]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", min=0.0, help="0 takes the likeliest token. Default: 0 for one sample, else 1."),
]
MaxChainTokens = Annotated[
    int | None, typer.Option("--max-chain-tokens", min=1, help="Longest chain. Default: as the checkpoint says.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Clips that are judged at a time. Default: 8; 64 with another engine than ours."
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What writes chains and reads rewards. native: ours; vllm: vLLM in this process; http://HOST:PORT/v1: an "
        "OpenAI-compatible server that has the checkpoint's export (docs/engines.md).",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto: over all GPUs. Default: one.")
]
BenchmarkRoot = Annotated[Path | None, typer.Option("--root", help="Folder that the benchmark was unpacked to.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many of the benchmark's rows.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, and nothing else on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
