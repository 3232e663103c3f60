"""The generator: a small Wan on pixels (diffusers' WanTransformer3DModel), and a text encoder learned with it.

In: noisy clips, their noise levels, prompts as word numbers. Out: the velocity of the flow from clip to noise.

The network predicts the clip itself, and the velocity follows from it (Li & He 2025, arXiv 2511.13720: where patches
are large and layers narrow, a clip can be predicted and noise cannot). On the straight path
noisy = (1 - sigma) clip + sigma noise the velocity noise - clip is (noisy - clip) / sigma.

Shapes: B clips, C = 3 colour channels, T frames, H rows, W columns, L words, D width."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from diffusers import WanTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from descore.errors import ConfigError
from descore.io import atomic_path, atomic_write, read_json_object
from experiments.generator.words import LENGTH, NOTHING, NUMBERS, UNKNOWN

LEAST_SIGMA = 0.05
"""Noise level below which a velocity is computed as if at this one: it would be the network's error, magnified."""

CONFIG_FILE, WEIGHTS_FILE = "generator.json", "generator.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """Sizes of the network."""

    heads: int = 3
    head_width: int = 64
    layers: int = 6
    inner: int = 576
    """Width inside a feed-forward layer."""
    patch: tuple[int, int, int] = (4, 8, 8)
    """Frames, rows and columns of a token."""

    @property
    def width(self) -> int:
        """Of a token."""
        return self.heads * self.head_width


class Generator(nn.Module):
    """A text-to-video model of the drawn world."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(UNKNOWN + 1 + len(NUMBERS), width)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.encoder = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = WanTransformer3DModel(
            patch_size=config.patch,
            num_attention_heads=config.heads,
            attention_head_dim=config.head_width,
            in_channels=3,
            out_channels=3,
            text_dim=width,
            freq_dim=128,
            ffn_dim=config.inner,
            num_layers=config.layers,
        )
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.zeros_(self.transformer.proj_out.weight)
        nn.init.zeros_(self.transformer.proj_out.bias)

    def encode(self, words_BL: Tensor) -> Tensor:
        """(B, L, D): the words of a prompt, each knowing the others."""
        encoded: Tensor = self.encoder(self.embedding(words_BL) + self.position)
        return encoded

    def clean(self, noisy_BCTHW: Tensor, sigma_B: Tensor, words_BL: Tensor) -> Tensor:
        """The clip (B, C, T, H, W) that the network expects behind the noise."""
        text_BLD = self.encode(words_BL)
        (clean_BCTHW,) = self.transformer(noisy_BCTHW, 1000 * sigma_B, text_BLD, return_dict=False)
        return clean_BCTHW  # type: ignore[no-any-return]

    def velocity(self, noisy_BCTHW: Tensor, sigma_B: Tensor, words_BL: Tensor, *, guidance: float = 1.0) -> Tensor:
        """Velocity (B, C, T, H, W). guidance: classifier-free (Ho & Salimans 2022); 1 is without."""
        if guidance == 1:
            return velocity_to(self.clean(noisy_BCTHW, sigma_B, words_BL), noisy_BCTHW, sigma_B)
        both_words = torch.cat([words_BL, torch.full_like(words_BL, NOTHING)])
        clean = self.clean(noisy_BCTHW.repeat(2, 1, 1, 1, 1), sigma_B.repeat(2), both_words)
        asked_BCTHW, free_BCTHW = clean.chunk(2)
        return velocity_to(free_BCTHW + guidance * (asked_BCTHW - free_BCTHW), noisy_BCTHW, sigma_B)

    def save(self, folder: Path) -> None:
        """Write the sizes and the weights."""
        weights = {name: weight.detach().contiguous() for name, weight in self.state_dict().items()}
        with atomic_path(folder / WEIGHTS_FILE) as part:
            save_file(weights, part)
        atomic_write(folder / CONFIG_FILE, json.dumps(asdict(self.config), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The generator of a folder. ConfigError if it holds none."""
        if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
            raise ConfigError(f"{folder}: has no {missing[0]}; expected a folder that experiments.generator.grow wrote")
        sizes = read_json_object(folder / CONFIG_FILE)
        try:
            model = cls(GeneratorConfig(**{**sizes, "patch": tuple(sizes["patch"])}))
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"{folder}: is no generator that can be opened ({reason}); grow it anew") from None
        return model.eval()


def velocity_to(clean_BCTHW: Tensor, noisy_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The velocity of the straight path through the noisy clip that begins at the clean one."""
    sigma_B1111 = sigma_B.clamp(min=LEAST_SIGMA).view(-1, 1, 1, 1, 1)
    return (noisy_BCTHW - clean_BCTHW) / sigma_B1111
