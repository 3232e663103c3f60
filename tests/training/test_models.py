"""Exactly the weights that the table says move; all others stay, bit for bit."""

import pytest
import torch
from tests.conftest import build_micro, noise_clip
from tests.model.families import build

from descore.errors import ConfigError, DescoreWarning
from descore.model.modeling import DescoreModel, has_adapters, merge_adapters
from descore.training.collate import ChainCollator, TrainingExample
from descore.training.config import BACKBONE_PARTS, LoraConfig, OptimConfig, PartConfig, TrainableConfig
from descore.training.losses import chain_loss
from descore.training.models import parameter_groups, part_of, set_trainable

OPTIM = OptimConfig(max_steps=1, learning_rate=1e-2, weight_decay=0.1)


def table(*, targets=None, **modes):
    parts = {part: PartConfig(mode=modes.get(part, "frozen")) for part in BACKBONE_PARTS}
    return TrainableConfig(**parts, lora=LoraConfig(r=2, lora_alpha=4, target_modules=targets))


def step(model, trainable):
    """One update; the names within the backbone of all weights that it moved."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    batch = ChainCollator(model.chat)([TrainingExample(clip=noise_clip(0, frames=2), prompt="p", chain="a red ball")])
    optimizer = torch.optim.AdamW(parameter_groups(model, trainable, OPTIM))
    chain_loss(model, batch, model.hidden(batch)).backward()
    optimizer.step()
    assert {name for name, _ in model.named_parameters()} == set(before)
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


def is_idle(name):
    """Two vision layers are too few for two features from within: the second's merger is there, and nothing asks for
    it. LLaVA-OneVision does not ask for its tower's last norm."""
    return "deepstack_merger_list.1." in name or "vision_tower.post_layernorm." in name


def of_part(model, part):
    names = (name for name, _ in model.backbone.named_parameters() if part_of(model, name) == part)
    return {f"backbone.{name}" for name in names if not is_idle(name)}


def adapters_of(model):
    return {name for name, _ in model.named_parameters() if ".lora_" in name and not is_idle(name)}


@pytest.mark.parametrize("part", BACKBONE_PARTS)
def test_a_full_part_moves_and_nothing_else(part):
    model = build_micro()
    set_trainable(model, table(**{part: "full"}), precision=torch.float32)
    assert step(model, table(**{part: "full"})) == of_part(model, part)


@pytest.mark.parametrize("part", BACKBONE_PARTS)
def test_beside_a_lora_part_adapters_move_and_nothing_else(part):
    model, plain = build_micro(), {name for name, _ in build_micro().named_parameters()}
    set_trainable(model, table(**{part: "lora"}), precision=torch.float32)
    adapters = adapters_of(model)
    assert {part_of(model, name.removeprefix("backbone.")) for name in adapters} == {part}
    # B starts at 0, so A has no gradient in the first update: weight decay moves it.
    moved = step(model, table(**{part: "lora"}))
    assert moved == adapters
    assert not {name.replace(".base_layer", "") for name in moved} & plain


def test_parts_mix():
    model = build_micro()
    mixed = table(merger="full", language_model="lora")
    set_trainable(model, mixed, precision=torch.float32)
    assert step(model, mixed) == of_part(model, "merger") | adapters_of(model)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("language_model", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("vision_tower", {"qkv", "proj", "linear_fc1", "linear_fc2"}),
        ("merger", {"linear_fc1", "linear_fc2"}),
    ],
)
def test_the_familys_own_targets_are_all_projections(part, expected):
    model = build_micro()
    set_trainable(model, table(**{part: "lora"}), precision=torch.float32)
    names = {name.split(".lora_")[0].split(".")[-1] for name, _ in model.named_parameters() if ".lora_" in name}
    assert names == expected


def test_targets_that_a_part_lacks_are_refused_with_those_it_has():
    with pytest.raises(ConfigError, match="merger has no linear layer of these names; it has linear_fc1, linear_fc2"):
        set_trainable(build_micro(), table(merger="lora", targets=("q_proj",)), precision=torch.float32)


def test_experts_get_no_adapter_and_the_user_is_told():
    model = build("qwen3_vl_moe")
    with pytest.warns(DescoreWarning, match="lora leaves experts as they are, beside which no adapter stands"):
        set_trainable(model, table(language_model="lora"), precision=torch.float32)
    assert {name.split(".")[-4] for name in adapters_of(model)} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    named = table(language_model="lora", targets=("gate_up_proj",))
    fault = "language_model has no linear layer of these names; it has k_proj, lm_head, .*; experts get no adapter$"
    with pytest.warns(DescoreWarning), pytest.raises(ConfigError, match=fault):
        set_trainable(build("qwen3_vl_moe"), named, precision=torch.float32)


def test_trainable_weights_are_float32_others_in_the_precision():
    model = build_micro()
    set_trainable(model, table(merger="full", language_model="lora"), precision=torch.bfloat16)
    kinds = {weight.requires_grad: set() for weight in model.backbone.parameters()}
    for weight in model.backbone.parameters():
        kinds[weight.requires_grad].add(weight.dtype)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
    assert model.query.dtype == model.head.weight.dtype == torch.float32


def test_groups_have_each_weight_once_with_its_parts_rate():
    model = build_micro()
    trainable = TrainableConfig(
        vision_tower=PartConfig(mode="full", learning_rate=1e-3), language_model=PartConfig(mode="lora")
    )
    set_trainable(model, trainable, precision=torch.float32)
    groups = parameter_groups(model, trainable, OPTIM)
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "vision_tower matrices": (1e-3, 0.1),
        "vision_tower vectors": (1e-3, 0.0),
        "language_model matrices": (1e-2, 0.1),
    }
    grouped = [id(weight) for group in groups for weight in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(weight) for weight in model.parameters() if weight.requires_grad}


def test_merging_an_adapter_keeps_the_outputs():
    model = build_micro()
    set_trainable(model, table(language_model="lora", vision_tower="lora"), precision=torch.float32)
    for name, weight in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    batch = ChainCollator(model.chat)([TrainingExample(clip=noise_clip(0, frames=2), prompt="p", chain="a red ball")])
    with torch.no_grad():
        beside = model.hidden(batch)
        merge_adapters(model.backbone)
        assert not has_adapters(model.backbone)
        # A sum of two products against one product of the sum: a few roundings in each of two layers.
        torch.testing.assert_close(model.hidden(batch), beside, atol=1e-4, rtol=1e-4)
    assert model.state_dict().keys() == build_micro().state_dict().keys()


def test_a_model_that_was_opened_with_adapters_is_saved_whole(tmp_path):
    model = build_micro()
    set_trainable(model, table(language_model="lora"), precision=torch.float32)
    for name, weight in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    model.settings = model.settings.model_copy(update={"trained_on": "noise"})
    model.save_pretrained(tmp_path / "first")
    DescoreModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    batch = ChainCollator(model.chat)([TrainingExample(clip=noise_clip(0, frames=2), prompt="p", chain="a red ball")])
    with torch.no_grad():
        again = DescoreModel.from_pretrained(tmp_path / "second").hidden(batch)
        torch.testing.assert_close(again, model.eval().hidden(batch), atol=1e-5, rtol=1e-5)
