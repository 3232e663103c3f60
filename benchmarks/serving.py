"""A server under load, as a process of its own, with the bundled model and clients in this process (Linux).

    python -m benchmarks.serving [PART ...] [--clips 128] [--repeats 3] [--seconds 60] [--requests 2000]
                                 [--silent 10000] [--out record.json] [--dry-run]

throughput: 16 clients against the offline batch on the same clips, the two in turn, and one client alone; the aim is at
least 90 % of the offline clips a second. overload: ten times the clients that there are places for; the aim is that all
answers are 200 or 503, none is lost, memory is flat, and the server is right again within a second. growth: many
requests; the aim is at most 5 % more memory, at rest, behind the last tenth than behind the first. silent: connections
that say nothing; the aim is that few are kept and requests are answered."""

import json
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.bulk import draw_table
from benchmarks.measure import environment, option_parser
from descore.rewards import write_scores
from descore.rewards.decoding import default_workers
from descore.rewards.sources import open_source
from descore.scorer import Scorer

CLIENTS, PLACES = 16, 16
_REST = 1.0
"""Seconds until a server whose requests are answered is at rest, and has given its free memory back."""
Clip = tuple[str, bytes]
"""A prompt and a file."""


class Server:
    """A server in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process, self.url = process, url

    @property
    def memory(self) -> float:
        """MiB of this process and those that decode for it."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return sum(_resident(pid) for pid in (str(own), *children))


def _resident(pid: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Pss:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


@contextmanager
def started(*options: str) -> Iterator[Server]:
    """A server that is ready."""
    command = [sys.executable, "-m", "descore", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        address = re.search(r"http://\S+", line)
        assert address, line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        while not _is_ready(address[0]):
            time.sleep(0.05)
        yield Server(process, address[0])
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/ready", timeout=5).is_success
    return False


def ask(http: httpx2.Client, clip: Clip) -> tuple[int, float, float | None]:
    """Status, seconds, and reward of a request; status 0 for one without an answer."""
    start = time.perf_counter()
    try:
        answer = http.post("/v1/score", data={"prompt": clip[0]}, files={"video": clip[1]})
    except httpx2.HTTPError:
        return 0, time.perf_counter() - start, None
    seconds = time.perf_counter() - start
    return answer.status_code, seconds, answer.json().get("reward") if answer.is_success else None


def ask_all(url: str, clips: Sequence[Clip], *, clients: int) -> tuple[float, list[tuple[int, float, float | None]]]:
    """Seconds for all clips, and each one's answer, in order."""
    with httpx2.Client(base_url=url, timeout=300) as http, ThreadPoolExecutor(clients) as threads:
        start = time.perf_counter()
        answers = list(threads.map(lambda clip: ask(http, clip), clips))
        return time.perf_counter() - start, answers


def throughput(folder: Path, clips: Sequence[Clip], options: Any) -> dict[str, float]:  # noqa: ANN401
    """Offline batch, many clients, and one client."""
    table = folder / "drawn" / "clips.csv"
    scorer = Scorer.from_pretrained("tiny")
    rates: dict[str, list[float]] = {"offline": [], "served": [], "alone": []}
    latency: dict[str, list[float]] = {"served": [], "alone": []}
    apart = 0.0
    with started("--max-queue", "64") as server:
        ask_all(server.url, clips[:CLIENTS], clients=CLIENTS)  # warm
        for turn in range(options.repeats):
            out = folder / f"{turn}.jsonl"
            summary = write_scores(table, out, scorer=scorer, workers=default_workers())
            rewards = [json.loads(line)["reward"] for line in out.read_text().splitlines()]
            rates["offline"].append(len(clips) / summary.seconds)
            for name, clients, some in (("served", CLIENTS, clips), ("alone", 1, clips[: len(clips) // 4])):
                seconds, answers = ask_all(server.url, some, clients=clients)
                assert all(status == 200 for status, _, _ in answers), Counter(status for status, _, _ in answers)
                rates[name].append(len(some) / seconds)
                latency[name] += [taken for _, taken, _ in answers]
                apart = max(apart, *(abs(a[2] - b) for a, b in zip(answers, rewards, strict=False) if a[2] is not None))
    figures = {f"{name} clips/s": statistics.median(values) for name, values in rates.items()}
    for name, values in latency.items():
        cuts = statistics.quantiles(values, n=20)
        figures |= {f"{name} p50 s": cuts[9], f"{name} p95 s": cuts[18]}
    ratio = statistics.median(a / b for a, b in zip(rates["served"], rates["offline"], strict=True))
    return {"served/offline": ratio, **figures, "largest difference": apart}


def overload(_: Path, clips: Sequence[Clip], options: Any) -> dict[str, float]:  # noqa: ANN401
    """Clients that ask again at once, ten times as many as there are places."""
    statuses: Counter[int] = Counter()
    until = time.perf_counter() + options.seconds
    with started("--max-queue", str(PLACES)) as server:
        ask_all(server.url, list(clips) * 2, clients=CLIENTS)  # warm
        before, peak = server.memory, [0.0]

        def insist(number: int) -> None:
            with httpx2.Client(base_url=server.url, timeout=300) as http:
                while time.perf_counter() < until:
                    status, _, _ = ask(http, clips[number % len(clips)])
                    statuses[status] += 1

        until = time.perf_counter() + options.seconds
        with ThreadPoolExecutor(10 * PLACES) as threads:
            jobs = [threads.submit(insist, number) for number in range(10 * PLACES)]
            while not all(job.done() for job in jobs):
                peak[0] = max(peak[0], server.memory)
                time.sleep(0.5)
        end = time.perf_counter()
        while not _is_ready(server.url):
            time.sleep(0.01)
        recovered = time.perf_counter() - end
        [(status, _, _)] = ask_all(server.url, clips[:1], clients=1)[1]
        after = server.memory
    lost = sum(count for code, count in statuses.items() if code not in (200, 503))
    figures = {"answers 200": statuses[200], "answers 503": statuses[503], "other or lost": lost}
    memory = {"MiB before": before, "MiB at most": peak[0], "MiB after": after}
    return {**figures, **memory, "ready after s": recovered, "then": status}


def growth(_: Path, clips: Sequence[Clip], options: Any) -> dict[str, float]:  # noqa: ANN401
    """Memory over many requests."""
    with started("--max-queue", "64") as server:
        tenth = max(options.requests // 10, CLIENTS)
        memory = []
        for part in range(10):
            some = [clips[(part * tenth + number) % len(clips)] for number in range(tenth)]
            _, answers = ask_all(server.url, some, clients=CLIENTS)
            assert all(status == 200 for status, _, _ in answers)
            time.sleep(_REST)
            memory.append(server.memory)
    return {
        "requests": 10 * tenth,
        "MiB first": memory[0],
        "MiB least": min(memory),
        "MiB most": max(memory),
        "MiB last": memory[-1],
        "growth": memory[-1] / memory[0] - 1,
    }


def silent(_: Path, clips: Sequence[Clip], options: Any) -> dict[str, float]:  # noqa: ANN401
    """Connections that say nothing, while one client asks."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with started() as server:
        before = server.memory
        host, port = server.url.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port)), timeout=30) for _ in range(options.silent)]
        _, answers = ask_all(server.url, clips[:4], clients=1)
        kept = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        after = server.memory
        for connection in held:
            connection.close()
    right = sum(status == 200 for status, _, _ in answers)
    slowest = max(seconds for _, seconds, _ in answers)
    return {
        "connections": len(held),
        "files kept": kept,
        "right of 4": right,
        "slowest s": slowest,
        "MiB more": after - before,
    }


PARTS: dict[str, Callable[[Path, Sequence[Clip], Any], dict[str, float]]] = {
    "throughput": throughput,
    "overload": overload,
    "growth": growth,
    "silent": silent,
}


def main() -> None:
    """Measure, print and record."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--silent", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="a JSON record")
    parser.add_argument("--dry-run", action="store_true", help="all of it, small: the figures mean nothing")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {unknown.pop()}; expected some of {', '.join(PARTS)}")
    if options.dry_run:
        options.clips, options.repeats, options.seconds, options.requests, options.silent = 16, 1, 4.0, 160, 800
    print(environment())
    record: dict[str, Any] = {"environment": environment(), "options": {k: str(v) for k, v in vars(options).items()}}
    with tempfile.TemporaryDirectory() as name:
        rows = list(open_source(draw_table(Path(name) / "drawn", clips=options.clips)).rows())
        clips = [(row.prompt, Path(row.path).read_bytes()) for row in rows]
        for part in options.parts or PARTS:
            record[part] = PARTS[part](Path(name), clips, options)
            print(part)
            for key, value in record[part].items():
                print(f"    {key:<20} {value:>12.6g}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
