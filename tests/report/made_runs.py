"""Made-up evaluation runs that look like true ones: two models, two benchmarks, thinking on and off, with failures,
missing labels, ratings, generators, aspects, marks and frames. Written to disk in the layout of a run directory."""

import io
import json
from dataclasses import asdict, replace

import numpy as np
from PIL import Image, ImageDraw

from descore.evaluation.results import results_of
from descore.evaluation.runs import CLIPS_FILE, FRAMES_FOLDER, LABELS_FILE, RESULTS_FILE, RUN_FILE, RUN_SCHEMA, read_run
from descore.types import DIMENSIONS, Pair, RatedClip

HOSTILE = (
    """</script><script>alarmed=true</script><img src=x onerror=alarmed=true>"'`{{7*7}}{% x %}]]>&amp; \u202e\x1b[2J"""
)

GENERATORS = ("wan-2.1", "cogvideo-x", "modelscope", "zeroscope")
PROMPTS = (
    "a red fox runs through fresh snow, tracked from the side",
    "time lapse of clouds over a mountain lake at dawn",
    "an old man laughs and pours tea into a blue cup",
    "a paper boat drifts down a rainy street, close up",
    "a robot waters tomatoes in a greenhouse, slow pan to the right",
    "two dancers turn under a single lamp, oil painting",
)
ASPECTS = ("animals", "scenery", "people", "objects", "actions", "style")
LABELS = {"fetv": ("spatial", "temporal", "alignment"), "genai-bench-video": ("overall",)}
TITLES = {"fetv": "FETV", "genai-bench-video": "GenAI-Bench video"}
PUBLISHED = [
    {"model": "VideoAlign", "label": "overall", "figure": figure, "value": value, "source": "arXiv 2605.05922, table 1"}
    for figure, value in (("accuracy", 0.728), ("with_ties", 0.494))
]
MODELS = (("tiny", "on", 0.9), ("tiny", "off", 0.5), ("runs/base-2b", "on", 1.3), ("sharpness", None, 0.25))
CHAIN = """The prompt asks for {prompt}. The main subject is {subject}; its outline stays {outline} over the frames. \
It {moves} as the prompt says, though the last frames {end}.
The camera holds still. The surroundings fit what was asked for; the light is even and the style is plain video.
<answer>{{"dimensional_scores": {{}}, "overall_score": {overall:.2f}}}</answer>"""


def made_clips(benchmark, *, seed=0, prompts=18):
    """Rated clips of four generators, and the pairs within each prompt."""
    rng = np.random.default_rng([seed, len(benchmark)])
    clips = []
    for number in range(prompts):
        prompt = PROMPTS[number % len(PROMPTS)] + (f", take {number // len(PROMPTS) + 1}" if number >= 6 else "")
        for strength, generator in enumerate(GENERATORS):
            ratings = {label: _rating(rng, 4.2 - 0.6 * strength) for label in LABELS[benchmark]}
            if number == 3:
                ratings.pop(LABELS[benchmark][0])  # nobody gave it
            marks = {name: int(rng.integers(3)) for name in DIMENSIONS} | {"camera": None}
            clips.append(
                RatedClip(
                    prompt=prompt,
                    video=f"videos/{generator}/{number:03}.mp4",
                    group=prompt,
                    ratings=ratings if benchmark == "fetv" else {},
                    marks=marks if benchmark == "fetv" else None,
                    source=generator,
                    aspect=ASPECTS[number % len(ASPECTS)],
                )
            )
    return clips, [
        pair for start in range(0, len(clips), 4) for pair in _pairs(rng, clips[start : start + 4], benchmark)
    ]


def _rating(rng, mean):
    return float(np.clip(np.round((mean + rng.normal(scale=0.7)) * 3) / 3, 1, 5))


def _pairs(rng, clips, benchmark):
    for k, a in enumerate(clips):
        for b in clips[k + 1 :]:
            preference = {}
            for label in LABELS[benchmark]:
                apart = a.ratings.get(label, np.nan) - b.ratings.get(label, np.nan)
                if benchmark != "fetv":
                    apart = 0.4 + rng.normal()
                if not np.isnan(apart):
                    preference[label] = "tie" if abs(apart) < 0.34 else "a" if apart > 0 else "b"
            yield Pair(
                prompt=a.prompt,
                video_a=a.video,
                video_b=b.video,
                preference=preference,
                group=a.group,
                source_a=a.source,
                source_b=b.source,
                aspect=a.aspect,
            )


def made_records(clips, *, model, think, skill, seed, failing):
    """A record for each clip; every thirtieth has no score, every twentieth chain was cut off."""
    rng = np.random.default_rng(seed)
    for number, clip in enumerate(clips):
        record = {"video": clip.video, "prompt": clip.prompt, "model": model, "fps": 8.0, "times": [0.0, 0.5, 1.0, 1.5]}
        empty = dict.fromkeys(
            ("reward", "score", "std", "thinking", "marks", "overall", "truncated", "error", "rewards")
        )
        record |= empty | {"tokens": None, "seconds": 0.0}
        if failing or number % 30 == 29:
            yield record | {"error": "the file ends in the middle of a frame", "fps": None, "times": None}
            continue
        generator = next(place for place, name in enumerate(GENERATORS) if clip.source.startswith(name))
        quality = np.mean(list(clip.ratings.values())) - 3 if clip.ratings else 1 - generator / 1.5
        reward = float(skill * quality + rng.normal(scale=0.8))
        cut = think == "on" and number % 20 == 19
        overall = float(np.clip(3 + reward, 1, 5))
        marks = {name: int(np.clip(round(1 + reward + rng.normal()), 0, 2)) for name in DIMENSIONS} | {"camera": None}
        chain = CHAIN.format(
            prompt=clip.prompt,
            subject="easy to make out" if reward > 0 else "hard to make out",
            outline="sharp" if reward > 0 else "soft and wavering",
            moves="moves" if reward > -0.5 else "hardly moves",
            end="flicker" if number % 2 else "blur",
            overall=overall,
        )
        yield record | {
            "reward": reward,
            "score": reward / 1.2,
            "thinking": (chain[:120] if cut else chain) if think == "on" else None,
            "marks": None if cut or think != "on" else marks,
            "overall": None if cut or think != "on" else overall,
            "truncated": cut,
            "rewards": {"overall": reward},
            "tokens": 180 if think == "on" else 0,
            "seconds": 1.9 if think == "on" else 0.2,
        }


def made_strip(seed, *, frames=4, width=128, height=96):
    """A JPEG of a coloured disc on its way."""
    rng = np.random.default_rng(seed)
    ground, disc = (tuple(int(v) for v in rng.integers(40, 220, 3)) for _ in range(2))
    strip = Image.new("RGB", (frames * (width + 4) - 4, height), (255, 255, 255))
    for frame in range(frames):
        left = frame * (width + 4)
        draw = ImageDraw.Draw(strip)
        draw.rectangle((left, 0, left + width - 1, height), fill=ground)
        x = left + 25 + frame * 22
        draw.ellipse((x - 18, 30, x + 18, 66), fill=disc)
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=80)
    return file.getvalue()


def write_run(folder, *, benchmark, model, think, skill, seed, clips, pairs, failing):
    """A run directory as `descore evaluate` leaves it; gives the folder."""
    (folder / FRAMES_FOLDER).mkdir(parents=True)
    config = {
        "schema": RUN_SCHEMA,
        "model": model,
        "benchmark": benchmark,
        "think": think,
        "samples": 1 if think else None,
        "seed": 0 if think else None,
        "temperature": 0.0 if think else None,
        "max_chain_tokens": 512 if think else None,
        "limit": None,
        "digest": f"{seed:016x}" if think is None else model.rjust(16, "0"),
        "versions": {"descore": "0.1.0", "torch": "2.13.0"},
        "started": f"2026-02-0{1 + seed % 9}T10:00:00+00:00",
    }
    records = list(made_records(clips, model=model, think=think, skill=skill, seed=seed, failing=failing))
    labels = {
        "title": TITLES[benchmark],
        "licence": "CC0, made up",
        "published": PUBLISHED if benchmark != "fetv" else [],
    }
    labels |= {"clips": [asdict(clip) for clip in clips], "pairs": [asdict(pair) for pair in pairs]}
    results = results_of(clips, pairs, {(r["video"], r["prompt"]): r for r in records})
    for name, content in ((RUN_FILE, config), (LABELS_FILE, labels), (RESULTS_FILE, results)):
        (folder / name).write_text(json.dumps(content))
    (folder / CLIPS_FILE).write_text("".join(json.dumps(record) + "\n" for record in records))
    shown = {video for worst in results["worst"][:10] for video in _videos(pairs[worst["pair"]])}
    for place, clip in enumerate(clips):
        if (clip.video, clip.prompt) in shown:
            (folder / FRAMES_FOLDER / f"{place}.jpg").write_bytes(made_strip(place))
    return folder


def write_runs(folder, *, hostile="", prompts=18, failing=False):
    """The folders of eight runs. `hostile` is put into every text that a run holds; `failing` leaves no score."""
    made = {name: _with(hostile, *made_clips(name, prompts=prompts)) for name in LABELS}
    result = []
    for benchmark, (clips, pairs) in made.items():
        for k, (model, think, skill) in enumerate(MODELS):
            run = {"benchmark": benchmark, "model": model + hostile, "think": think, "skill": skill, "seed": k}
            run |= {"clips": clips, "pairs": pairs, "failing": failing}
            result.append(write_run(folder / f"{benchmark}-{k}", **run))
    return result


def made_runs(folder, **how):
    return [read_run(path) for path in write_runs(folder, **how)]


def with_records(run, **changes):
    """The run with something else in the records of all its scored clips."""
    records = {key: record | changes if record["error"] is None else record for key, record in run.records.items()}
    return replace(run, records=records)


def made_stress(hostile=""):
    """What stress.json holds."""
    rows = [
        ("swap the prompt", "lower", 0.93, -1.62),
        ("shuffle the frames", "lower", 0.71, -0.48),
        ("grey", "lower", 0.58, -0.12),
        ("brighten mildly", "same", 0.9, 0.04),
        ("flattering words in the prompt", "same", 0.44, 0.71),
        ("half the frames per second", "same", None, None),
    ]
    figure = dict.fromkeys(("low", "high"))
    return {
        "schema": 1,
        "model": f"tiny{hostile}",
        "think": "on",
        "tolerance": 0.25,
        "failures": [{"video": f"a.mp4{hostile}", "error": f"no such file{hostile}"}],
        "rows": [
            {
                "perturbation": name + hostile,
                "expected": expected,
                "why": f"because{hostile}",
                "figure": {**figure, "value": value, "n": 72 if value else 0, "failed": 0, "groups": 18}
                | ({"low": value - 0.08, "high": min(1, value + 0.07)} if value else {}),
                "shift": shift,
                "n": 72 if value else 0,
            }
            for name, expected, value, shift in rows
        ],
    }


def _videos(pair):
    return (pair.video_a, pair.prompt), (pair.video_b, pair.prompt)


def _with(hostile, clips, pairs):
    """The same clips and pairs with the text in every name, label, prompt, generator and aspect."""
    if not hostile:
        return clips, pairs

    def renamed(named):
        return {f"{label}{hostile}": value for label, value in named.items()}

    clips = [
        replace(
            clip,
            prompt=clip.prompt + hostile,
            video=f"{clip.video}{hostile}",
            ratings=renamed(clip.ratings),
            source=f"{clip.source}{hostile}",
            aspect=f"{clip.aspect}{hostile}",
        )
        for clip in clips
    ]
    pairs = [
        replace(
            pair,
            prompt=pair.prompt + hostile,
            video_a=f"{pair.video_a}{hostile}",
            video_b=f"{pair.video_b}{hostile}",
            preference=renamed(pair.preference),
            source_a=f"{pair.source_a}{hostile}",
            source_b=f"{pair.source_b}{hostile}",
            aspect=f"{pair.aspect}{hostile}",
        )
        for pair in pairs
    ]
    return clips, pairs
