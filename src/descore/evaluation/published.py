"""Figures that others report on the public benchmarks, each with its source. Knows numbers; does nothing."""

from descore.data.schema import OVERALL
from descore.evaluation.layouts import Published

_DESCORE = "arXiv 2605.05922"
_VIDEOALIGN = "arXiv 2501.13918, leaderboard"
_VISIONREWARD = "arXiv 2412.21059, table 2"


def _accuracies(source: str, label: str, figures: dict[str, tuple[float, float]]) -> tuple[Published, ...]:
    """Published pair accuracies of several models: with ties, without."""
    both = (
        (
            Published(model=model, label=label, figure="with_ties", value=with_ties, source=source),
            Published(model=model, label=label, figure="accuracy", value=without, source=source),
        )
        for model, (with_ties, without) in figures.items()
    )
    return tuple(figure for pair in both for figure in pair)


VIDEOGEN_REWARDBENCH = (
    *_accuracies(
        _DESCORE,
        "TA",
        {
            "VideoScore": (0.372, 0.503),
            "VideoAlign": (0.538, 0.722),
            "VisionReward": (0.465, 0.611),
            "UnifiedReward": (0.303, 0.564),
            "UnifiedReward-Think": (0.428, 0.582),
            "VideoScore2": (0.301, 0.497),
            "DeScore": (0.568, 0.768),
        },
    ),
    *_accuracies(
        _VIDEOALIGN,
        "VQ",
        {
            "VideoScore": (0.4741, 0.4772),
            "LiFT": (0.4753, 0.5597),
            "VisionReward": (0.4743, 0.5903),
            "VideoAlign": (0.5968, 0.7566),
        },
    ),
    *_accuracies(
        _VIDEOALIGN,
        "MQ",
        {
            "VideoScore": (0.5905, 0.5109),
            "LiFT": (0.5904, 0.5491),
            "VisionReward": (0.5903, 0.6098),
            "VideoAlign": (0.6603, 0.7470),
        },
    ),
    *_accuracies(
        _VIDEOALIGN,
        OVERALL,
        {
            "VideoScore": (0.4180, 0.5022),
            "LiFT": (0.3908, 0.5726),
            "VisionReward": (0.5677, 0.6759),
            "VideoAlign": (0.6126, 0.7359),
        },
    ),
)

GENAI_BENCH = _accuracies(
    _DESCORE,
    OVERALL,
    {
        "VideoScore": (0.490, 0.720),
        "VideoAlign": (0.494, 0.728),
        "VisionReward": (0.525, 0.724),
        "UnifiedReward": (0.458, 0.686),
        "UnifiedReward-Think": (0.548, 0.709),
        "VideoScore2": (0.391, 0.616),
        "DeScore": (0.504, 0.765),
    },
)

MJ_BENCH_VIDEO = (
    Published(
        model="MJ-VIDEO",
        label=OVERALL,
        figure="accuracy",
        value=0.6875,
        source="arXiv 2502.01719v3, table 2",
    ),
)

MONETBENCH = _accuracies(
    _VISIONREWARD,
    OVERALL,
    {
        "ImageReward": (0.558, 0.584),
        "PickScore": (0.577, 0.616),
        "HPSv2": (0.593, 0.625),
        "MPS": (0.558, 0.589),
        "GPT-4o": (0.457, 0.483),
        "Gemini": (0.522, 0.568),
        "VQAScore": (0.561, 0.595),
        "VideoScore": (0.491, 0.549),
        "VisionReward": (0.640, 0.721),
    },
)

VIDEOSCORE_BENCH = (
    Published(
        model="VideoScore",
        label="mean of the labels",
        figure="spearman",
        value=0.771,
        source="arXiv 2406.15252",
    ),
)
