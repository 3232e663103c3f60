"""Low-rank adapters beside a backbone's weights: find them, fold them in, write them to a directory.

A directory with adapters holds the weights that they stand beside as well, so transformers and `DescoreModel` open it
wherever it is moved. Knows a transformers model that PEFT has put adapters into; knows nothing of who trained them."""

from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor


def is_adapter(name: str) -> bool:
    """Whether a weight's name is that of an adapter's."""
    return ".lora_" in name


def has_adapters(backbone: Any) -> bool:  # noqa: ANN401  # the families' classes share no typed base
    """Whether there are adapters beside the backbone's weights."""
    return any(is_adapter(name) for name, _ in backbone.named_parameters())


def fold_adapters(backbone: Any) -> None:  # noqa: ANN401
    """Add each adapter's product to the weight that it stands beside, and take the adapter away."""
    if not has_adapters(backbone):
        return
    from peft.tuners.lora import LoraLayer

    for name, layer in [(n, m) for n, m in backbone.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        backbone.set_submodule(name, layer.get_base_layer())
    # A model that is marked so is saved as its adapters alone.
    backbone._hf_peft_config_loaded = False
    del backbone.peft_config
    # Nor is it saved by the names of the adapters' file that it was read from.
    vars(backbone).pop("_weight_conversions", None)


def write_what_they_stand_beside(backbone: Any, folder: Path) -> None:  # noqa: ANN401
    """Write config and weights into a directory where `save_pretrained`, given adapters, has written these alone."""
    backbone.config.save_pretrained(folder)
    save_torch_state_dict(_without_adapters(backbone), folder)


def _without_adapters(backbone: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The weights by the names that they have where there are no adapters; one that has two names, by its first."""
    once = {name for name, _ in (*backbone.named_parameters(), *backbone.named_buffers()) if not is_adapter(name)}
    weights = backbone.state_dict().items()
    return {name.replace(".base_layer.", "."): weight for name, weight in weights if name in once}
