"""Adapters merged while chains are written, and steps that are captured: both write what the plain loop writes.

There is no GPU in these tests. A tape stands in for a CUDA graph: it records a step's operations with the tensors that
they read and write, and replays them on the same memory without a line of the step's Python, as a graph does. What
would fail in a capture fails on the tape: numbers read by the host, and tensors made of Python's."""

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from tests.conftest import build_micro, noise_clip
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from descore.model import decoding, generation
from descore.model.decoding import StepGraphs, compiled_parts, decoding_path, fast_decoding, merged_adapters
from descore.model.generation import ChainWriter, think_and_score
from descore.training.config import LoraConfig, PairTrainableConfig
from descore.training.models import set_trainable

TOLERANCE = 1e-5
CLIPS = [noise_clip(0), noise_clip(1, frames=6, width=64, height=48), noise_clip(3, frames=5, width=48)]
PROMPTS = ["a red ball", "a long prompt in two scripts, 漢字 and Latin: " + "and then " * 9, "x" * 50]
HOW = {"limit": 150, "temperature": 5.0, "samples": 3, "seeds": [3, 23, 43]}
"""Some chains end early and leave, some are longer than a room of own columns, some reach the limit."""


class Tape(TorchDispatchMode):
    """Operations with their operands and results."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = str(operation)
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh")), name
        result = operation(*args, **(kwargs or {}))
        self.done.append((operation, args, kwargs or {}, result))
        return result

    def replay(self):
        for operation, args, kwargs, recorded in self.done:
            for old, new in zip(tree_leaves(recorded), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # a view has nothing to copy
                    old.copy_(new)


def record(read):
    with Tape() as tape:
        result = read()
    result.zero_()  # capturing computes nothing
    return tape.replay, result


def fails(_read):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def write(model, graphs, which=(0, 1, 2), clips=CLIPS, **options):
    """Chains and rewards by the writer alone, with these graphs or by the plain loop."""
    how = {**HOW, **options}
    uniform = [np.random.default_rng([how["seeds"][i], s]).random(how["limit"] + 1) for i in which for s in range(3)]
    prompts = model.chat.lay_out_prompts([clips[i] for i in which], [PROMPTS[i] for i in which])
    with torch.inference_mode():
        writer = ChainWriter(
            model, prompts, samples=3, temperature=how["temperature"], uniform_RN=np.stack(uniform), graphs=graphs
        )
        return *writer.write(), writer


def recorded(**options):
    return StepGraphs(**{"capture": record, "compiler": None, **options})


@pytest.fixture(scope="module")
def plain(micro):
    return write(micro, None)[:2]


def assert_equal(one, other):
    assert one[0] == other[0]
    torch.testing.assert_close(one[1], other[1], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def adapters():
    """The micro model with adapters in all three of its parts, which change what it writes."""
    model = build_micro()
    parts = {name: {"mode": "lora"} for name in ("language_model", "vision_tower", "merger")}
    set_trainable(model, PairTrainableConfig(**parts, lora=LoraConfig(r=4, lora_alpha=8)), precision=torch.float32)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.backbone.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.1)
    return model.eval()


def snapshot(model):
    """Weights by name, with where they are."""
    return {name: (weight.data_ptr(), weight.detach().clone()) for name, weight in model.state_dict().items()}


def assert_untouched(model, before):
    after = snapshot(model)
    assert after.keys() == before.keys()
    for name, (address, weight) in before.items():
        assert after[name][0] == address, name
        assert torch.equal(after[name][1], weight), name


def unmerged(patch):
    patch.setattr(generation, "_decoding_of", lambda _: generation.nullcontext())


@pytest.mark.parametrize("how", [{"limit": 24}, HOW], ids=["greedy", "sampled"])
def test_merged_adapters_write_what_adapters_write(adapters, how, monkeypatch):
    prompts = adapters.chat.lay_out_prompts(CLIPS, PROMPTS)
    before, merges = snapshot(adapters), []
    merge = decoding._merged
    monkeypatch.setattr(decoding, "_merged", lambda layer: merges.append(layer) or merge(layer))
    fast = think_and_score(adapters, prompts, **how)
    assert len(merges) == sum(type(m).__name__ == "Linear" and hasattr(m, "lora_A") for m in adapters.modules()) > 0
    assert_untouched(adapters, before)
    with monkeypatch.context() as patch:
        unmerged(patch)
        slow = think_and_score(adapters, prompts, **how)
    assert [[c.token_ids for c in row] for row in fast] == [[c.token_ids for c in row] for row in slow]
    rewards = [torch.tensor([[c.rewards["overall"] for c in row] for row in rows]) for rows in (fast, slow)]
    torch.testing.assert_close(*rewards, atol=TOLERANCE, rtol=0)


def test_no_adapter_runs_inside_and_all_are_back_outside(adapters):
    layers = {name: layer for name, layer in adapters.backbone.named_modules() if hasattr(layer, "lora_A")}
    before = snapshot(adapters)
    with merged_adapters(adapters.backbone), merged_adapters(adapters.backbone):
        assert not any(hasattr(layer, "lora_A") for layer in adapters.backbone.modules())
        inner = {name: adapters.backbone.get_submodule(name).weight.clone() for name in layers}
    for name, layer in layers.items():
        assert adapters.backbone.get_submodule(name) is layer
        expected = layer.base_layer.weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(inner[name], expected)  # alpha / r = 2
    assert_untouched(adapters, before)


def test_a_kept_stand_in_has_the_new_sum_at_its_old_address(adapters):
    """As on CUDA, where graphs know the address: an update of the adapters between two rollouts moves nothing."""
    name, layer = next((n, m) for n, m in adapters.backbone.named_modules() if hasattr(m, "lora_A"))
    with merged_adapters(adapters.backbone):
        first = decoding._STAND_INS[layer] = adapters.backbone.get_submodule(name)
        address, before = first.weight.data_ptr(), first.weight.clone()
    half = layer.lora_B["default"].weight
    with torch.no_grad():
        half.mul_(2.0)
    with merged_adapters(adapters.backbone):
        again = adapters.backbone.get_submodule(name)
        assert (again, again.weight.data_ptr()) == (first, address)
        torch.testing.assert_close(again.weight - before, before - layer.base_layer.weight)
    with torch.no_grad():
        half.div_(2.0)
    del decoding._STAND_INS[layer]


def test_an_exception_puts_adapters_back(adapters, monkeypatch):
    before = snapshot(adapters)
    monkeypatch.setattr(ChainWriter, "_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        think_and_score(adapters, adapters.chat.lay_out_prompts(CLIPS, PROMPTS), limit=4)
    assert_untouched(adapters, before)
    merge, left = decoding._merged, [3]

    def out_of_memory(layer):
        left[0] -= 1
        return merge(layer) if left[0] else 1 / 0

    monkeypatch.setattr(decoding, "_merged", out_of_memory)  # in the middle of merging
    with pytest.raises(ZeroDivisionError):
        think_and_score(adapters, adapters.chat.lay_out_prompts(CLIPS, PROMPTS), limit=4)
    assert_untouched(adapters, before)


def test_adapters_that_are_no_plain_sum_stay(adapters, monkeypatch):
    """Switched off, as the reference model has them; with dropout in training; a variant; a quantized weight."""

    def stays():
        with merged_adapters(adapters.backbone):
            return all(adapters.backbone.get_submodule(name) is layer for name, layer in layers)

    layers = [(name, layer) for name, layer in adapters.backbone.named_modules() if hasattr(layer, "lora_A")]
    adapters.backbone.disable_adapters()
    assert stays()
    adapters.backbone.enable_adapters()
    adapters.train()
    assert stays()
    adapters.eval()
    assert not stays()
    for _, layer in layers:
        monkeypatch.setitem(layer.lora_variant, "default", object())
    assert stays()
    for _, layer in layers:
        monkeypatch.delitem(layer.lora_variant, "default")
        monkeypatch.setattr(layer.base_layer, "__class__", type("Linear4bit", (torch.nn.Linear,), {}))
    assert stays()


@pytest.mark.slow
def test_a_recorded_step_writes_what_the_plain_loop_writes(micro, plain):
    """Rows leave, and the room of own columns grows from 64 to 128 and 256; nothing of a step is left to Python."""
    graphs = recorded()
    assert_equal(write(micro, graphs)[:2], plain)
    *again, writer = write(micro, graphs)  # the storage was growing before
    assert_equal(again, plain)
    assert {own[2] for _, own, *_ in graphs.steps} == {64, 128, 256}
    assert {own[0] for _, own, *_ in graphs.steps} == {9, 4}
    assert writer.cache.layers[0].prompt_keys.shape[2] == 256


@pytest.mark.slow
def test_a_shape_is_captured_once_and_kept(micro, plain):
    """The first writing ends with the storage at its largest; what the second captures serves all others."""
    graphs = recorded()
    for _ in range(2):
        write(micro, graphs)
    steps, places = dict(graphs.steps), {name: flat.data_ptr() for name, flat in graphs.storage.items()}
    assert_equal(write(micro, graphs)[:2], plain)
    assert graphs.steps == steps
    assert {name: flat.data_ptr() for name, flat in graphs.storage.items()} == places
    other = write(micro, graphs, seeds=[7, 8, 9], temperature=1.0)[:2]
    assert_equal(other, write(micro, None, seeds=[7, 8, 9], temperature=1.0)[:2])


@pytest.mark.slow
def test_storage_that_grows_forgets_the_graphs(micro, plain):
    graphs = recorded()
    short = write(micro, graphs, which=[0], limit=20)[:2]
    assert_equal(short, write(micro, None, which=[0], limit=20)[:2])
    [first] = graphs.steps
    assert_equal(write(micro, graphs)[:2], plain)
    assert first not in graphs.steps
    assert_equal(write(micro, graphs, which=[0], limit=20)[:2], short)


def test_weights_that_move_forget_the_graphs(monkeypatch):
    model, graphs = build_micro(), recorded()
    monkeypatch.setattr(StepGraphs, "_obstacle", lambda *_: None)

    def steps():
        with graphs.claimed(model) as claimed:
            write(model, claimed, which=[0], limit=20)
        return dict(graphs.steps)

    first = steps()
    assert steps() == first
    norm = model.backbone.model.language_model.norm.weight
    norm.data = norm.data * 2.0
    with graphs.claimed(model) as claimed:
        assert not graphs.steps
        assert_equal(write(model, claimed, which=[0], limit=20)[:2], write(model, None, which=[0], limit=20)[:2])


@pytest.mark.slow
def test_graphs_are_bounded(micro, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_GRAPHS", 2)
    graphs = recorded()
    for _ in range(2):
        write(micro, graphs)
    assert len(graphs.steps) == 2


def test_a_capture_that_fails_leaves_the_plain_loop(micro, plain):
    calls = []
    graphs = StepGraphs(capture=lambda read: calls.append(1) or fails(read), compiler=lambda function: function)
    assert_equal(write(micro, graphs)[:2], plain)
    assert len(calls) == 2  # compiled, and once more without the compiler
    assert graphs.describe(micro) == (
        "plain loop: a step could not be captured (operation not permitted when stream is capturing)"
    )
    with graphs.claimed(micro) as claimed:
        assert claimed is None


def test_a_compiler_that_fails_is_left_out(micro, plain):
    def compiler(_function):
        def missing(*_):
            raise RuntimeError("found no C compiler")

        return missing

    graphs = recorded(compiler=compiler)
    assert_equal(write(micro, graphs)[:2], plain)
    assert graphs.describe(micro).endswith("captured; nothing compiled: found no C compiler")
    assert "one CUDA graph a step" in graphs.describe(micro)


@pytest.mark.slow
def test_norms_mlps_and_rotary_are_compiled_in_the_capture(micro, plain):
    """One function for each kind, for all layers, and put back behind the capture."""
    compiled, calls = [], []

    def compiler(function):
        compiled.append(function.__qualname__)
        return lambda *args: calls.append(function.__qualname__) or function(*args)

    graphs = recorded(compiler=compiler)
    assert_equal(write(micro, graphs)[:2], plain)
    kinds = {"Qwen3VLTextRMSNorm.forward", "Qwen3VLTextMLP.forward", "apply_rotary_pos_emb"}
    assert set(compiled) == set(calls) == kinds
    steps = len(compiled) // 3
    # two layers: norms before attention and MLP, of queries and of keys in each, and one behind all
    assert [calls.count(name) // steps for name in sorted(kinds)] == [2, 9, 2]
    assert not any("forward" in vars(part) for part in micro.backbone.modules())


def test_another_thread_writes_by_the_plain_loop(micro, monkeypatch):
    monkeypatch.setattr(StepGraphs, "_obstacle", lambda *_: None)
    graphs = recorded()
    with graphs.claimed(micro) as first, graphs.claimed(micro) as second:
        assert first is graphs
        assert second is None
    with graphs.claimed(micro) as third:
        assert third is graphs


def test_the_path_and_its_reason_are_one_line(micro, adapters, monkeypatch):
    assert decoding_path(micro) == "plain loop: the model is on cpu, graphs need CUDA"
    with fast_decoding(micro) as graphs:
        assert graphs is None
    graphs = recorded()
    assert graphs.describe(adapters) == graphs.describe(micro) == "one CUDA graph a step, 0 shapes captured"
    adapters.backbone.disable_adapters()
    assert graphs.describe(adapters) == "plain loop: it has adapters that cannot be merged"
    adapters.backbone.enable_adapters()
    layer = micro.backbone.model.language_model.layers[1].mlp
    handle = layer.register_forward_hook(lambda *_: None)
    assert graphs.describe(micro) == "plain loop: Qwen3VLTextMLP has a hook, which a graph would not call"
    handle.remove()
    monkeypatch.setattr(micro.backbone.config.get_text_config(), "num_experts", 8, raising=False)
    assert "experts are chosen by the data" in graphs.describe(micro)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.19"), reason="its bfloat16 products take the other kernel"
)
def test_autocast_has_graphs_of_its_own(micro):
    """Its casts are inside each replay: what autocast keeps is freed behind it."""
    graphs = recorded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = write(micro, graphs, which=[0], limit=20)[:2]
        # The same storage, read by the plain loop: another width of the prompt would round in another order. The tape
        # sees a linear layer as its product, and bfloat16's products have two kernels.
        chains, rewards, _ = write(micro, StepGraphs(capture=fails, compiler=None), which=[0], limit=20)
    assert half[0] == chains
    torch.testing.assert_close(half[1], rewards, atol=0.02, rtol=0)
    write(micro, graphs, which=[0], limit=20)
    assert [key[-1] for key in graphs.steps] == [torch.bfloat16, False]


@pytest.mark.slow
def test_torchs_compiler_compiles_each_kind_once(micro):
    """Without a backend: its guards decide whether the layers share one function."""
    from torch._dynamo.utils import counters

    counters.clear()
    with (
        torch.inference_mode(),
        compiled_parts(micro.backbone.model.language_model, lambda function: torch.compile(function, backend="eager")),
    ):
        layers = micro.backbone.model.language_model.layers
        hidden = torch.randn(3, 1, 64)
        for layer in layers:
            torch.testing.assert_close(layer.mlp(hidden), type(layer.mlp).forward(layer.mlp, hidden))
            layer.input_layernorm(hidden)
    assert counters["stats"]["unique_graphs"] == 2
