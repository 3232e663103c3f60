"""A teacher behind a real server: vLLM serves the former tiny by OpenAI's API, and a model is trained on its chains.

Pairs are drawn, so that the true marks are known. The same clips are asked about in three ways: the file itself as a
video_url, its frames as images, and frames in a batch file that `vllm run-batch` answers. Of each way are printed the
requests, the tokens, the seconds, what each filter rejected and the share of right marks. The chains of the first way
train a model (stage 0, stage 1), which then scores a clip. Every step is a command of descore, as a user gives it.

    make vllm && python -m benchmarks.teacher [--pairs 16] [--record FILE]

The former tiny learned from whole videos: as a teacher it reads a video's frames, and it never saw a single image.
The ways are compared in what arrives, not in how well it judges."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import FORMER_TINY, environment, option_parser, print_row

ROOT = Path(__file__).parents[1]
NAME = "tiny-teacher"
CHAIN_TOKENS, FRAMES = 192, 8
"""The former tiny's own limits of a chain and of a video."""
STARTING = 600.0
"""Seconds that vLLM may take to open the model."""
IMAGE = "{%- elif part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}"
"""In the chat template: the former tiny's has no place for an image."""
MODEL_OPTIONS = (
    *("--served-model-name", NAME, "--dtype", "float32", "--max-model-len", "4096", "--enforce-eager"),
    *("--limit-mm-per-prompt", json.dumps({"image": FRAMES, "video": 1})),
    *("--media-io-kwargs", json.dumps({"video": {"num_frames": FRAMES}})),
    # in pieces, a prompt with a seed ends vLLM 0.32 on a CPU ("CPU Generator does not use offset")
    *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
)
COLLECT: dict[str, Any] = {
    "data": {"table": "pairs/pairs.csv", "checkpoint": str(FORMER_TINY)},
    "teacher": {"model": NAME, "max_completion_tokens": CHAIN_TOKENS, "price_in": 1.0, "price_out": 4.0},
    "num_chains": 2,
    "limits": {"budget": 1.0},
}
TRAINING: dict[str, Any] = {
    "data": {"dataloader_num_workers": 0},
    "trainable": {"lora": {"r": 8, "lora_alpha": 16}},
    "optim": {"learning_rate": 1e-4, "per_device_train_batch_size": 4, "max_steps": 2},
}
WAYS = ("video", "frames", "batch")


def descore(folder: Path, *arguments: str) -> str:
    """Standard output of a command in this folder."""
    command = [sys.executable, "-m", "descore", *arguments]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"descore {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def prepare(folder: Path, *, pairs: int) -> None:
    """Draw the pairs, export the model, and write the chat template."""
    descore(folder, "world", "sample", "--split", "train", "--count", str(pairs), "--out", "pairs")
    descore(folder, "export", str(FORMER_TINY), "served", "--for", "vllm", "--dtype", "float32")
    template = (folder / "served" / "chat_template.jinja").read_text(encoding="utf-8")
    changed = template.replace("{%- else -%}{{ part.text }}", IMAGE)
    assert changed != template, "the template of the former tiny has changed"
    (folder / "template.jinja").write_text(changed, encoding="utf-8")


def vllm_options(folder: Path) -> list[str]:
    """What the server and the reader of batches have in common."""
    return ["--model", str(folder / "served"), "--chat-template", str(folder / "template.jinja"), *MODEL_OPTIONS]


def vllm_environment() -> dict[str, str]:
    """A server on the CPU, without the user's own packages on its path."""
    return {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ, "PYTHONPATH": ""}


@contextmanager
def server(folder: Path, python: Path) -> Iterator[str]:
    """A server of the model, for the time of the block: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "vllm.entrypoints.openai.api_server"
    command = [str(python), "-m", module, "--host", "127.0.0.1", "--port", str(port), *vllm_options(folder)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=vllm_environment(), stdout=log, stderr=log)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/v1", process, folder / "server.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once the server lists its models. Exits if it has ended, or takes longer than STARTING."""
    end = time.monotonic() + STARTING
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/models", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise SystemExit(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")


def collect(folder: Path, way: str, *overrides: str) -> dict[str, Any]:
    """Collect by one way, and give the command's summary with its seconds."""
    config = COLLECT | {"run": {"out": way}}
    (folder / f"{way}.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    start = time.perf_counter()
    summary = json.loads(descore(folder, "chains", "collect", f"{way}.yaml", *overrides, "--json"))
    return {**summary, "seconds": time.perf_counter() - start}


def collect_batch(folder: Path, python: Path) -> dict[str, Any]:
    """Write a batch file, let `vllm run-batch` answer it, and read its results. seconds: of that command."""
    written = collect(folder, "batch", "teacher.kind=openai-batch")
    assert written["waiting"] == 0, "the first call writes all requests"
    start = time.perf_counter()
    for number, file in enumerate(written["batch_files"]):
        out = Path(file).with_name(f"results-{number}.jsonl")
        # vllm-cpu has no command `vllm run-batch`, which is this module
        command = [str(python), "-m", "vllm.entrypoints.openai.run_batch", "-i", file, "-o", str(out)]
        command += vllm_options(folder)
        with (folder / "batch.log").open("a") as log:
            done = subprocess.run(command, cwd=folder, env=vllm_environment(), stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"run-batch failed:\n{(folder / 'batch.log').read_text(errors='replace')[-3000:]}")
    seconds = time.perf_counter() - start
    return {**collect(folder, "batch", "teacher.kind=openai-batch"), "seconds": seconds}


def figures(folder: Path, way: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What came of a way: requests, tokens, seconds, and the filters' counts."""
    checked = json.loads(descore(folder, "chains", "check", way, "--out", f"{way}.html", "--json"))
    totals, right = summary["totals"], checked["right_marks"].get("all", {"value": None})
    return {
        "requests": summary["requests"],
        "answered": summary["answered"],
        "tokens_in": totals["tokens_in"],
        "tokens_out": totals["tokens_out"],
        "cost": round(totals["cost"], 6),
        "seconds": round(summary["seconds"], 1),
        "kept": checked["kept"],
        "rejected": {step: count for step, count in checked["rejected"].items() if count},
        "rows_kept": checked["rows_kept"],
        "right_marks": right["value"],
    }


def train(folder: Path) -> dict[str, Any]:
    """Train on the chains that came of the video, and score a clip with the trained model."""
    start = time.perf_counter()
    for stage, config in {
        "sft": {"model": {"checkpoint": str(FORMER_TINY)}, "run": {"out": "wrote", "merge": True}},
        "cold-start": {"model": {"checkpoint": "wrote/model"}, "run": {"out": "scored"}},
    }.items():
        data = {**TRAINING["data"], "train": "video/chains.jsonl"}
        (folder / f"{stage}.yaml").write_text(json.dumps(TRAINING | config | {"data": data}), encoding="utf-8")
        descore(folder, "train", stage, f"{stage}.yaml")
    clip = next((folder / "pairs" / "clips").glob("*.mp4"))
    scored = descore(folder, "score", str(clip), "--prompt", "a red ball rolls", "--model", "scored/model", "--json")
    return {"seconds": round(time.perf_counter() - start, 1), "reward": json.loads(scored)["reward"]}


def run(folder: Path, options: Namespace) -> dict[str, Any]:
    """All ways, then the training."""
    prepare(folder, pairs=options.pairs)
    found: dict[str, Any] = {}
    with server(folder, options.vllm) as address:
        for form in ("video", "frames"):
            asked = collect(folder, form, f"teacher.video={form}", f"teacher.base_url={address}")
            found[form] = figures(folder, form, asked)
            again = collect(folder, form, f"teacher.video={form}", f"teacher.base_url={address}")
            assert again["asked"] == 0, "a second call asks nothing"
    found["batch"] = figures(folder, "batch", collect_batch(folder, options.vllm))
    return {"ways": found, "trained": train(folder)}


def main() -> None:
    """Run, print and record."""
    parser = option_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--vllm", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python", help="vLLM's python")
    parser.add_argument("--record", type=Path, help="a JSON file for the figures")
    parser.add_argument("--keep", type=Path, help="a new folder for everything that is made on the way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found = run(folder, options)
    print(f"{environment()}\n{2 * options.pairs} clips, {COLLECT['num_chains']} chains each, float32\n")
    print_row(("", *WAYS), width=14)
    for name in next(iter(found["ways"].values())):
        cells = (re.sub(r'[{}" ]', "", json.dumps(found["ways"][way][name])) for way in WAYS)
        print_row((name, *cells), width=14)
    print(f"trained and scored in {found['trained']['seconds']} s: reward {found['trained']['reward']:.3f}")
    if options.record:
        record = {"machine": environment(), "clips": 2 * options.pairs, **found}
        options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
