"""EfficientVL: Qwen3-VL's language model behind the eyes of EfficientNet-lite0.

Each frame is seen by a convolutional network that was trained on photographs (Tan and Le 2019, "EfficientNet", arXiv
1905.11946; lite0 has ReLU6, and no squeeze and excitation). What stands at the place of a visual token, 32x32 pixels of
two frames, is gathered from five depths of it: the mean of both frames, the change from the first to the second, and
the change from the frame before to the first, so that a token shows whether motion goes on as it was. Besides, the
network's own labels are read at each place, and vectors of what they mean, each as often as its label is probable, are
added up (ConSE, Norouzi et al. 2013, arXiv 1312.5650). Times, positions and the layout of tokens are Qwen3-VL's.

transformers knows none of these classes: importing this module registers them with its Auto classes.

Shapes: N frames, S pairs of them, C channels, H x W pixels or cells, V tokens of all videos, F features of a token in a
frame, M values of a meaning, R patches, P values of a patch, D width."""

from collections.abc import Iterator, Mapping
from itertools import accumulate, groupby
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig, Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    BaseModelOutputWithDeepstackFeatures,
    Qwen3VLForConditionalGeneration,
)

from descore.model import qwen3_vl
from descore.model.chat import Inputs

MODEL_TYPES = ("efficient_vl",)

WRAPS_FRAMES, INTERLEAVES_POSITIONS = qwen3_vl.WRAPS_FRAMES, False
lay_out_videos, sizes_needed = qwen3_vl.lay_out_videos, qwen3_vl.sizes_needed
frame_pixels, values_of_token = qwen3_vl.frame_pixels, qwen3_vl.values_of_token
EXPORTS, ENGINE_FAULT = False, "was tried with no engine but native"
PACKS, ROW_STATES = qwen3_vl.PACKS, qwen3_vl.ROW_STATES

PARTS: Mapping[str, tuple[str, ...]] = {
    "merger": ("model.visual.merger.",),
    "vision_tower": ("model.visual.",),
    "language_model": ("model.language_model.", "lm_head."),
}

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "merger": ("linear_fc1", "linear_fc2", "meaning"),
    "vision_tower": ("widen", "narrow", "top", "labels", "meanings"),
    "language_model": qwen3_vl.LORA_TARGETS["language_model"],
}

positions, vision_of, last_hidden = qwen3_vl.positions, qwen3_vl.vision_of, qwen3_vl.last_hidden

STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
"""Of EfficientNet's stages: blocks, edge of the filters, stride of the first block, channels."""
STEM = 32
"""Channels of the first convolution, which halves the picture."""
WIDER = 6
"""By this a block widens its channels, but in the first stage."""
TOKEN, FRAMES = 32, 2
"""Pixels along each edge of a token, the stride of the last stage; and frames of it."""
CELLS = {2: 4, 4: 2, 6: 1}
"""Stage → cells along each edge of a token, whose channels are all given."""
AMPLITUDES = {0: 16, 1: 8}
"""Stage → cells along each edge of a token, of whose channels the root of the mean square is given."""
FEATURES = sum(STAGES[s][3] * n**2 for s, n in CELLS.items()) + sum(STAGES[s][3] for s in AMPLITUDES)
"""F."""
TOP, LABELS = 1280, 1000
"""Channels of the layer behind the last stage, and ImageNet's labels."""
VIEWS = 3
"""Of a token's features: their mean in its two frames, their change, and their change since the frame before."""
MOST_FRAMES = 32
"""Frames that the network sees at a time, which bounds the memory."""
_EPSILON = 1e-5


def encode_vision(backbone: Any, inputs: Inputs) -> Inputs:  # noqa: ANN401
    """As of Qwen3-VL, but videos are not cut between frames: a token shows what changed since the frame before."""
    if qwen3_vl.VISION_FEATURES in inputs:
        return inputs
    tower = backbone.model.visual
    out = tower(inputs[qwen3_vl.VISION_PIXELS].to(tower.dtype), grid_thw=inputs["video_grid_thw"])
    others = {name: value for name, value in inputs.items() if name != qwen3_vl.VISION_PIXELS}
    return {**others, qwen3_vl.VISION_FEATURES: out.pooler_output[:, None]}


def misfits(config: Any, processor: Any) -> Iterator[str]:  # noqa: ANN401
    """What in the processor does not belong to the config, and what in the config is not understood."""
    yield from qwen3_vl.misfits(config, processor)
    vision, expected = config.vision_config, f"{TOKEN}x{TOKEN} of {FRAMES}"
    edge, frames = vision.patch_size * vision.spatial_merge_size, vision.temporal_patch_size
    if (edge, frames) != (TOKEN, FRAMES):
        yield f"a token is {edge}x{edge} pixels of {frames} frames; expected {expected}"


@strict
class EfficientVisionConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of what follows the network, whose own are fixed, and how Qwen3-VL's processor cuts its patches."""

    model_type = "efficient_vl_vision"
    base_config_key = "vision_config"

    hidden_size: int = 512
    """Width between the two layers that make a token of the gathered features."""
    out_hidden_size: int = 320
    meaning_size: int = 256
    """M."""
    in_channels: int = 3
    patch_size: int = 16
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    initializer_range: float = 0.02


@strict
class EfficientVLConfig(Qwen3VLConfig):  # type: ignore[misc]
    """Qwen3-VL's, with these eyes."""

    model_type = "efficient_vl"
    sub_configs: ClassVar = {"vision_config": EfficientVisionConfig, "text_config": Qwen3VLTextConfig}


class Filter(nn.Conv2d):
    """A convolution with TensorFlow's padding, which the weights were trained with: of an odd number of pixels the
    greater part goes to the right and below. Batch normalization is folded into its weights."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, ceil(H / stride), ceil(W / stride))."""
        edge, stride = self.kernel_size[0], self.stride[0]
        high, wide = (max((-(-size // stride) - 1) * stride + edge - size, 0) for size in x_NCHW.shape[2:])
        if high % 2 or wide % 2:  # a copy, which the layer's own padding spares
            x_NCHW = functional.pad(x_NCHW, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
            high = wide = 0
        return functional.conv2d(
            x_NCHW, self.weight, self.bias, stride, padding=(high // 2, wide // 2), groups=self.groups
        )


class Block(nn.Module):
    """An inverted bottleneck: widen, filter each channel, narrow."""

    def __init__(self, taken: int, given: int, *, edge: int, stride: int, wider: int) -> None:
        super().__init__()
        inner = taken * wider
        self.widen = nn.Conv2d(taken, inner, 1) if wider > 1 else None
        self.filter = Filter(inner, inner, edge, stride, groups=inner)
        self.narrow = nn.Conv2d(inner, given, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W), added to what came in where the shape allows it."""
        y_NCHW = x_NCHW if self.widen is None else functional.relu6(self.widen(x_NCHW), inplace=True)
        y_NCHW = functional.relu6(self.filter(y_NCHW), inplace=True)
        out_NCHW: Tensor = self.narrow(y_NCHW)
        return x_NCHW + out_NCHW if x_NCHW.shape == out_NCHW.shape else out_NCHW


class Merger(nn.Module):
    """From a token's features in all views to the width of the language model.

    gain, shift: bring each into units of its deviation; see `fit`. meaning: of what the place shows, whose own place is
    among the vectors of words."""

    def __init__(self, config: EfficientVisionConfig) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(VIEWS * FEATURES)), nn.Parameter(torch.zeros(VIEWS * FEATURES))
        self.linear_fc1 = nn.Linear(VIEWS * FEATURES, config.hidden_size)
        self.linear_fc2 = nn.Linear(config.hidden_size, config.out_hidden_size)
        self.meaning = nn.Linear(config.meaning_size, config.out_hidden_size, bias=False)

    def forward(self, gathered_V3F: Tensor, meaning_VM: Tensor) -> Tensor:
        """(V, D)."""
        in_units_V3F = ((gathered_V3F - self.shift) * self.gain).to(self.linear_fc1.weight.dtype)
        gathered_VD = self.linear_fc2(functional.gelu(self.linear_fc1(in_units_V3F)))
        token_VD: Tensor = gathered_VD + self.meaning(meaning_VM)
        return token_VD

    @torch.no_grad()
    def fit(self, gathered_V3F: Tensor) -> None:
        """Set the units to these tokens' mean and deviation. What never changes there weighs nothing."""
        deviation_3F, mean_3F = torch.std_mean(gathered_V3F, dim=0)
        self.shift.copy_(mean_3F)
        self.gain.copy_(torch.where(deviation_3F > _EPSILON, 1 / deviation_3F, 0))


class EfficientVisionModel(PreTrainedModel):  # type: ignore[misc]
    """The eyes."""

    config_class = EfficientVisionConfig
    main_input_name = "hidden_states"
    _no_split_modules: ClassVar = ["Block"]

    def __init__(self, config: EfficientVisionConfig) -> None:
        super().__init__(config)
        self.spatial_merge_size = config.spatial_merge_size
        self.stem, channels = Filter(config.in_channels, STEM, 3, stride=2), STEM
        self.stages = nn.ModuleList()
        for number, (blocks, edge, stride, given) in enumerate(STAGES):
            sizes = [(channels, stride), *[(given, 1)] * (blocks - 1)]
            wider = WIDER if number else 1
            self.stages.append(nn.Sequential(*(Block(c, given, edge=edge, stride=s, wider=wider) for c, s in sizes)))
            channels = given
        self.top, self.labels = nn.Conv2d(channels, TOP, 1), nn.Linear(TOP, LABELS)
        self.meanings = nn.Linear(LABELS, config.meaning_size, bias=False)
        self.merger = Merger(config)
        self.post_init()

    def forward(self, hidden_states: Tensor, grid_thw: Tensor, **_: object) -> BaseModelOutputWithDeepstackFeatures:
        """Tokens (V, D) of patches (R, P) in the order of Qwen3-VL's processor, R = t * h * w of each row (t, h, w)."""
        gathered_V3F = self.gather(hidden_states, grid_thw)
        tokens_VD = self.merger(gathered_V3F, self.meaning(gathered_V3F[:, :FEATURES]))
        return BaseModelOutputWithDeepstackFeatures(
            last_hidden_state=gathered_V3F, pooler_output=tokens_VD, deepstack_features=[]
        )

    def meaning(self, places_VF: Tensor) -> Tensor:
        """(V, M): what each place shows, by the labels of its features."""
        begin, channels = sum(STAGES[s][3] * n**2 for s, n in CELLS.items()), STAGES[-1][3]
        last_VC11 = places_VF[:, begin - channels : begin, None, None].to(self.top.weight.dtype)
        meaning_VM: Tensor = self.meanings(self.label_logits(last_VC11).flatten(1).softmax(dim=1))
        return meaning_VM

    def label_logits(self, last_NCHW: Tensor) -> Tensor:
        """(N, L, H, W): of labels at each place of the last stage."""
        top_NCHW = functional.relu6(self.top(last_NCHW))
        logits_NHWL: Tensor = self.labels(top_NCHW.movedim(1, 3))
        return logits_NHWL.movedim(3, 1)

    def gather(self, patches_RP: Tensor, grid_B3: Tensor) -> Tensor:
        """(V, 3 F): of each token, the mean of its two frames' features, their change from the first to the second, and
        from the frame before to the first: 0 where a video begins."""
        parts, begin = list[Tensor](), 0
        for (height, width), run in groupby(grid_B3.tolist(), key=lambda grid: (grid[1], grid[2])):
            steps = [steps for steps, _, _ in run]
            end = begin + sum(steps) * height * width
            frames_NCHW = self._frames(patches_RP[begin:end], height, width)
            # In float32, since a small change is a difference of large numbers.
            place_NHWF = torch.cat([self.look(some) for some in torch.split(frames_NCHW, MOST_FRAMES)]).float()
            first_SHWF, second_SHWF = place_NHWF[0::2], place_NHWF[1::2]
            since_SHWF = first_SHWF - second_SHWF.roll(1, dims=0)
            since_SHWF[[0, *accumulate(steps[:-1])]] = 0
            views = ((first_SHWF + second_SHWF) / 2, second_SHWF - first_SHWF, since_SHWF)
            parts.append(torch.cat(views, dim=3).flatten(0, 2))
            begin = end
        return torch.cat(parts)

    def _frames(self, patches_RP: Tensor, height: int, width: int) -> Tensor:
        """Frames (N, 3, H, W), two to a step, of patches in blocks of a token each."""
        merge, edge = self.config.spatial_merge_size, self.config.patch_size
        sizes = (-1, height // merge, width // merge, merge, merge)
        parts = patches_RP.view(*sizes, self.config.in_channels, FRAMES, edge, edge)
        frames = parts.permute(0, 6, 5, 1, 3, 7, 2, 4, 8)
        return frames.reshape(-1, self.config.in_channels, height * edge, width * edge)

    def look(self, frames_NCHW: Tensor) -> Tensor:
        """Features (N, H, W, F) at the place of each token: cells of two middle stages and the last one's, which have
        what is there and where, and the amplitudes of the first two, which have texture and noise."""
        seen = self.depths(frames_NCHW)
        cells = (functional.pixel_unshuffle(seen[stage], cells) for stage, cells in CELLS.items())
        pooled = (functional.avg_pool2d(seen[stage].square(), edge) for stage, edge in AMPLITUDES.items())
        return torch.cat([*cells, *((square + _EPSILON).sqrt() for square in pooled)], dim=1).movedim(1, 3)

    def depths(self, frames_NCHW: Tensor) -> list[Tensor]:
        """What each stage gives."""
        x_NCHW = frames_NCHW.contiguous(memory_format=torch.channels_last)
        x_NCHW, seen = functional.relu6(self.stem(x_NCHW)), list[Tensor]()
        for stage in self.stages:
            x_NCHW = stage(x_NCHW)
            seen.append(x_NCHW)
        return seen


class EfficientVLForConditionalGeneration(Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen3-VL, whose tower is the one that its config names."""

    config_class = EfficientVLConfig


def weights_of_network(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the eyes but for meanings and merger, from those of EfficientNet-lite0 by the names of
    efficientnet-pytorch."""
    weights = folded(released, "_conv_stem", "_bn0", "stem") | folded(released, "_conv_head", "_bn1", "top")
    weights |= {f"labels.{name}": released[f"_fc.{name}"] for name in ("weight", "bias")}
    numbers = iter(range(sum(blocks for blocks, *_ in STAGES)))
    for stage, (blocks, *_) in enumerate(STAGES):
        for block in range(blocks):
            name, ours = f"_blocks.{next(numbers)}", f"stages.{stage}.{block}"
            if stage:
                weights |= folded(released, f"{name}._expand_conv", f"{name}._bn0", f"{ours}.widen")
            weights |= folded(released, f"{name}._depthwise_conv", f"{name}._bn1", f"{ours}.filter")
            weights |= folded(released, f"{name}._project_conv", f"{name}._bn2", f"{ours}.narrow")
    return weights


def folded(released: Mapping[str, Tensor], convolution: str, normalization: str, ours: str) -> dict[str, Tensor]:
    """Y = (conv(x) - mean) / sqrt(variance + eps) * scale + shift, as one convolution."""
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, scale, shift = (released[f"{normalization}.{name}"] for name in names)
    gain = scale / (variance + 1e-3).sqrt()
    weight = released[f"{convolution}.weight"] * gain[:, None, None, None]
    return {f"{ours}.weight": weight, f"{ours}.bias": shift - mean * gain}


AutoConfig.register(EfficientVLConfig.model_type, EfficientVLConfig, exist_ok=True)
AutoModel.register(EfficientVisionConfig, EfficientVisionModel, exist_ok=True)
AutoModelForImageTextToText.register(EfficientVLConfig, EfficientVLForConditionalGeneration, exist_ok=True)
