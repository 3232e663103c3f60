"""Protocols of other reward services, so that trainers' own clients get their rewards here without a change.

    descore serve --dialect unirl --dialect flow_factory=16

None is on by default: routes that nobody uses stay closed. `all` means those whose requests are JSON and plain arrays;
the two whose requests are pickles are on only where they are named, though a pickle is read here without being run
(see `pickles`). This module loads nothing, so that settings can check names."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from descore.errors import ConfigError, short_repr

DIALECTS: Mapping[str, str] = MappingProxyType(
    {
        "flow_grpo": "flow_grpo's remote reward: POST / with a pickle",
        "verl_omni": "verl-omni's HTTP scorer: POST / with a pickle",
        "unirl": "UniRL's reward service: POST /score, GET /rewards",
        "flow_factory": "Flow-Factory's reward server: POST /compute",
        "cosmos_rl": "cosmos-rl's reward service: POST /api/reward/enqueue and /api/reward/pull",
        "openai": "Pref-GRPO's judge: POST /v1/chat/completions with the frames of two videos",
        "classify": "vLLM's classification: POST /classify with a video",
    }
)
"""By name, what each is for."""

PICKLED = ("flow_grpo", "verl_omni")
"""Those whose requests are pickles."""

ALL = "all"


def parse_dialects(texts: Sequence[str]) -> dict[str, float | None]:
    """The dialects of `NAME`, `NAME=FPS` and `all`, each with the frames per second of frames that its clients send.

    ConfigError for a name that is not known, one that is given twice, and an fps that is no positive number."""
    named: dict[str, float | None] = {}
    for text in texts:
        name, separator, fps = text.partition("=")
        if name != ALL and name not in DIALECTS:
            raise ConfigError(f"--dialect {short_repr(text)}: unknown; there are {', '.join(DIALECTS)} and {ALL}")
        if name in named:
            raise ConfigError(f"--dialect {name}: given twice")
        named[name] = _rate(text, fps) if separator else None
    if ALL in named:
        rate = named.pop(ALL)
        named = {**dict.fromkeys((name for name in DIALECTS if name not in PICKLED), rate), **named}
    return named


def _rate(text: str, fps: str) -> float:
    try:
        rate = float(fps)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConfigError(
            f"--dialect {short_repr(text)}: expected NAME=FPS with a positive number of frames per second"
        )
    return rate
