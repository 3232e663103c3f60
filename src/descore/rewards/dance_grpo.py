"""VideoAlign's face, for DanceGRPO (`fastvideo/train_grpo_hunyuan.py` and its kin) and whatever else calls VideoAlign.

One import line changes:

    from descore.rewards.dance_grpo import VideoVLMRewardInference      # was fastvideo.models.videoalign.inference
    inferencer = VideoVLMRewardInference("path/to/checkpoint", device=device, dtype=torch.bfloat16)
    inferencer.reward([video_path], [prompt], use_norm=True)            # [{"VQ", "MQ", "TA", "Overall"}]"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from descore.errors import ConfigError, DescoreWarning
from descore.rewards.adapter import open_reward
from descore.rewards.function import RewardFunction, Rewards
from descore.rewards.terms import MARK_TERMS, known_terms
from descore.types import Score

MARKS_OF: Mapping[str, str] = MappingProxyType({"VQ": "marks.style", "MQ": "marks.dynamics", "TA": "marks.subject"})
"""The mark that stands for each of VideoAlign's dimensions where the head has no dimension of that name."""


class VideoVLMRewardInference:
    """VideoAlign's visual quality (VQ), motion quality (MQ), text alignment (TA) and Overall, from our checkpoint.

    VQ, MQ and TA are the head's dimensions of these names where it has them, and otherwise the chain's marks: +1 right,
    0 partly or not asked for, -1 wrong. `terms` says it otherwise: `terms={"VQ": "reward", "MQ": "reward"}` trains by
    the head's reward alone, which tells more clips apart than a mark. Overall is the reward, not VideoAlign's sum."""

    def __init__(
        self,
        load_from_pretrained: str | Path | None = None,
        load_from_pretrained_step: int = -1,
        device: str | torch.device | None = "cuda",
        dtype: str | torch.dtype | None = torch.bfloat16,
        *,
        terms: Mapping[str, str] | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """load_from_pretrained: our checkpoint; None: DESCORE_MODEL. settings: fields of `AdapterSettings`; fps is read
        from the files. ConfigError for a term that the checkpoint cannot give."""
        if load_from_pretrained_step != -1:
            raise ConfigError(
                f"load_from_pretrained_step is {load_from_pretrained_step}; expected -1 and that step's folder as "
                "load_from_pretrained"
            )
        settings = {"device": device, "dtype": dtype, **settings}
        if load_from_pretrained is not None:
            settings["model"] = load_from_pretrained
        self.normalized = _open(**settings)
        self.raw = _open(**{**settings, "normalize": "none"})
        self.terms = _terms(self.raw, terms or {})

    def reward(
        self,
        video_paths: Sequence[str | Path],
        prompts: Sequence[str],
        fps: float | None = None,
        num_frames: int | None = None,
        max_pixels: int | None = None,
        use_norm: bool = True,
    ) -> list[dict[str, float]]:
        """A dict with VQ, MQ, TA and Overall for each video.

        use_norm: by the checkpoint's mean and deviation; False: raw. Marks are the same either way.
        fps, num_frames, max_pixels: VideoAlign's sampling; ours is the checkpoint's, these are ignored, with a warning.
        The trainer turns what is raised into -1.0, a reward like any other: a clip without a reward is NaN instead."""
        ignored = {"fps": fps, "num_frames": num_frames, "max_pixels": max_pixels}
        if given := [name for name, value in ignored.items() if value is not None]:
            message = f"{', '.join(given)}: frames are sampled as the checkpoint says; leave it out"
            warnings.warn(message, DescoreWarning, stacklevel=2)
        function = self.normalized if use_norm else self.raw
        result = function(videos=list(video_paths), prompts=list(prompts))
        return [self._row(result, index) for index in range(len(result))]

    def _row(self, result: Rewards, index: int) -> dict[str, float]:
        named = {key: _value(result, term, index) for key, term in self.terms.items()}
        return {**named, "Overall": float(result.rewards[index])}


def _open(**settings: Any) -> RewardFunction:  # noqa: ANN401
    return open_reward("VideoVLMRewardInference(path, {})", on_error="nan", needs_fps=False, **settings)


def _terms(reward: RewardFunction, given: Mapping[str, str]) -> dict[str, str]:
    settings = reward.scorer.settings
    known = known_terms(settings, thinks=reward.sampling_params.think != "off")
    terms = {key: key if key in settings.dimensions else mark for key, mark in MARKS_OF.items()} | dict(given)
    for key, term in terms.items():
        if key not in MARKS_OF or term not in known:
            line = f"terms={{{key if key in MARKS_OF else 'VQ'!r}: 'reward'}}"
            raise ConfigError(f"no {key} by the term {term!r} of {', '.join(known)}; write such as {line}")
    return terms


def _value(result: Rewards, term: str, index: int) -> float:
    value, score = float(result.terms[term][index]), result.scores[index]
    answered = isinstance(score, Score) and any(chain.verdict is not None for chain in score.completions)
    return 0.0 if math.isnan(value) and answered and term in MARK_TERMS else value
