"""What holds for every family of backbones: one pass, batches, packs, training, and files.

All in float32, where two ways differ by the order of sums only."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from tests.conftest import noise_clip
from tests.model.families import CLIPS, build, clips_of, internvl, qwen2_5_vl, tell
from tests.model.test_decoding import assert_equal, recorded, write
from tests.training.conftest import make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows
from tests.training.test_models import is_idle, of_part, step, table

from descore import Scorer
from descore.engines.exports import open_export
from descore.errors import CheckpointError, ConfigError, VideoError
from descore.model import expert_weights, qwen3_vl
from descore.model.chat import QUERY_TOKEN, video_metadata
from descore.model.checkpoint import CheckpointSettings
from descore.model.export import export_for_vllm
from descore.model.generation import score_chains, suppressed_token_ids, think_and_score
from descore.model.modeling import FAMILIES, DescoreModel, family_of, merge_adapters, open_processor
from descore.model.small import small_tokenizer
from descore.rubric import write_answer
from descore.training.cold_start import train_cold_start
from descore.training.config import BACKBONE_PARTS
from descore.training.models import is_linear, set_trainable
from descore.training.rl.packing import forward_pack, pack_groups
from descore.training.rl.run import train_rl, warn_of_whole_rows
from descore.training.sft import train_sft
from descore.types import Verdict
from descore.video.sampling import VideoSampling, fit_size

TOLERANCE = 1e-5
PROMPTS = ["a red ball", "a long prompt: " + "and then " * 9, "?", "x" * 50]
TYPES = ["qwen2_vl", "qwen2_5_vl"]
"""Those with positions of their own here."""
SQUARE = ["internvl", "smolvlm", "llava_onevision"]
"""Those whose frames are squares of one size."""
RECURRENT = ["qwen3_5", pytest.param("qwen3_5_moe", marks=pytest.mark.slow)]
"""Those with linear attention. What is particular to them is tested below, the rest in the slow tests."""
MIXTURES = ["qwen3_vl_moe", "internvl_moe", "qwen3_5_moe"]
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("qwen2_vl", *SQUARE, "qwen3_5", "efficient_vl", *MIXTURES)
]


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl", *SLOW])
def model(request):
    return build(request.param)


def prompts_of(model, which=range(4)):
    clips = clips_of(model)
    return model.chat.lay_out_prompts([clips[i] for i in which], [PROMPTS[i] for i in which])


def rewards_of(completions):
    return torch.tensor([[list(c.rewards.values()) for c in of_clip] for of_clip in completions])


def test_one_pass_is_reading_again(model):
    prompts = prompts_of(model)
    limit = 60 if model.family.PACKS else 70  # more than a room of own columns has
    watchers = [ended_after(most) for most in ((3, 40, limit), (limit, 7, 20), (0, limit, 12), (25, 2, limit))]
    how = {"limit": limit, "temperature": 4.0, "samples": 3, "seeds": [1, 2, 3, 4]}
    completions = think_and_score(model, prompts, on_tokens=watchers, **how)
    lengths = {len(c.token_ids) for of_clip in completions for c in of_clip}
    assert len(lengths) > 2, "the chains are of unlike lengths"
    for sample in range(3):
        again_BK = score_chains(model, prompts, [of_clip[sample].token_ids for of_clip in completions])
        torch.testing.assert_close(rewards_of(completions)[:, sample], again_BK, atol=TOLERANCE, rtol=0)


def test_a_clip_alone_is_as_in_a_batch(model):
    both = think_and_score(model, prompts_of(model), limit=24)
    for row in range(4):
        [alone] = think_and_score(model, prompts_of(model, [row]), limit=24)
        assert alone[0].token_ids == both[row][0].token_ids
        torch.testing.assert_close(rewards_of([alone]), rewards_of([both[row]]), atol=TOLERANCE, rtol=0)


def test_without_a_chain_rewards_depend_on_clip_and_prompt(model):
    def off(clips, prompts):
        laid_out = model.chat.lay_out_prompts(clips, prompts)
        return score_chains(model, laid_out, [model.chat.no_thinking] * len(clips))[:, 0]

    clips = clips_of(model)
    together = off(clips, PROMPTS)
    alone = torch.cat([off([clip], [prompt]) for clip, prompt in zip(clips, PROMPTS, strict=True)])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    assert (off([clips[1]], [PROMPTS[0]]) - alone[0]).abs() > 1e-3
    assert (off([clips[0]], [PROMPTS[1]]) - alone[0]).abs() > 1e-3


def test_a_pack_is_its_chains_own_sequences(model):
    chains = [[model.chat.encode_chain(text) for text in group] for group in (["a red ball", "left"], ["rolls", "x"])]
    prompts = prompts_of(model, range(2))
    packs = [forward_pack(model, p, temperature=1.0, entropy=False) for p in pack_groups(model, prompts, chains)]
    log_prob_N = torch.cat([pack.log_prob_N for pack in packs])
    reward_R = torch.cat([pack.reward_RK[:, 0] for pack in packs])
    suppressed = [*model.chat.forbidden_ids, *range(len(model.chat.tokenizer), 320)]
    expected, rewards = [], []
    for row, group in enumerate(chains):
        for chain in group:
            alone = prompts_of(model, [row])
            whole = model.chat.lay_out_chains(alone, [chain])
            hidden_1TD = model.hidden(whole)
            logits_NV = model.backbone.lm_head(hidden_1TD[0, -len(chain) - 2 : -2])
            logits_NV[:, suppressed] = -torch.inf
            expected += [row.log_softmax(-1)[token] for row, token in zip(logits_NV, chain, strict=True)]
            rewards.append(model.rewards(hidden_1TD)[0, 0])
    torch.testing.assert_close(log_prob_N, torch.stack(expected), atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(reward_R, torch.stack(rewards), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("model_type", RECURRENT)
def test_states_of_rows_that_wait_stand_still(model_type):
    """Chains that end before others, which are written on, and leave in between."""
    model = build(model_type)
    prompts = prompts_of(model)
    lengths = [(1, 9), (4, 12), (0, 3), (7, 2)]
    how = {"limit": 12, "temperature": 5.0, "samples": 2, "seeds": [1, 2, 3, 5]}
    completions = think_and_score(model, prompts, on_tokens=[ended_after(of_clip) for of_clip in lengths], **how)
    assert [tuple(len(c.token_ids) - 1 for c in of_clip) for of_clip in completions] == lengths
    for sample in range(2):
        again_BK = score_chains(model, prompts, [of_clip[sample].token_ids for of_clip in completions])
        torch.testing.assert_close(rewards_of(completions)[:, sample], again_BK, atol=TOLERANCE, rtol=0)


def ended_after(lengths):
    """A watcher that ends each of a clip's chains behind so many tokens."""
    left = list(lengths)

    def goes_on(sample, _token):
        left[sample] -= 1
        return left[sample] >= 0

    return goes_on


@pytest.mark.parametrize("model_type", RECURRENT)
def test_greedy_chains_of_linear_attention_are_transformers_own(model_type):
    """By `generate`, in a batch with padding on the left. An output matrix of its own, since the tied one repeats."""
    model = build(model_type)
    torch.manual_seed(1)
    model.backbone.lm_head.weight = torch.nn.Parameter(torch.randn(320, 64))
    prompts = prompts_of(model)
    ours = think_and_score(model, prompts, limit=12)
    assert all(len({*completion.token_ids}) > 6 for [completion] in ours)
    with torch.inference_mode():
        theirs = model.backbone.generate(
            **prompts,
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=suppressed_token_ids(model),
            eos_token_id=model.chat.end_id,
            pad_token_id=model.chat.pad_id,
        )[:, prompts["input_ids"].shape[1] :]
    for [completion], theirs_N in zip(ours, theirs.tolist(), strict=True):
        written = completion.token_ids[:12]
        assert written == theirs_N[: len(written)]


@pytest.mark.parametrize("model_type", RECURRENT)
def test_where_no_mask_parts_chains_each_is_a_whole_row(model_type):
    """Gradients are those of each chain alone, whatever stands beside it, and with layers read again. transformers sums
    the logarithms of decays over 64 columns in float32: their gradients differ by 1.4e-5, in float64 by nothing."""
    model = build(model_type).train()
    texts = (["a red ball rolls"], ["x", "left, left"])
    groups = [[model.chat.encode_chain(text) for text in group] for group in texts]
    prompts = prompts_of(model, range(2))
    [whole] = pack_groups(model, prompts, groups)
    rows, columns = whole.input_ids_PT.shape
    assert (rows, whole.chains) == (3, ((0, 0), (1, 0), (1, 1)))
    split = pack_groups(model, prompts, groups, token_budget=2 * columns)
    assert [len(pack.input_ids_PT) for pack in split] == [1, 2]  # whole groups

    def gradients(values):
        model.zero_grad()
        torch.stack([*values]).sum().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    expected = gradients(number for row in range(2) for number in alone(model, row, groups[row]))
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    seen = []
    model.backbone.model.visual.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for packs in ([whole], split):
        outputs = [forward_pack(model, pack) for pack in packs]
        found = gradients(output.log_prob_N.sum() + output.reward_RK.sum() for output in outputs)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            atol = 3 * TOLERANCE * max(1.0, float(expected[name].abs().max()))
            torch.testing.assert_close(gradient, expected[name], atol=atol, rtol=0, msg=name)
    assert sum(seen) == 2 * len(prompts["pixel_values_videos"]), "each clip is encoded once"


def alone(model, row, chains):
    """Of each chain, the sum of its log-probabilities and its reward, by a forward of its own without padding."""
    suppressed = suppressed_token_ids(model)
    for chain in chains:
        hidden_1TD = model.hidden(model.chat.lay_out_chains(prompts_of(model, [row]), [chain]))
        logits_NV = model.backbone.lm_head(hidden_1TD[0, -len(chain) - 2 : -2])
        logits_NV[:, suppressed] = -torch.inf
        yield logits_NV.log_softmax(-1)[range(len(chain)), chain].sum() + model.rewards(hidden_1TD)[0, 0]


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen3_5"])
def test_rows_of_their_own_are_said_before_a_run(model_type):
    model = build(model_type)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn_of_whole_rows(model)
    expected = ["qwen3_5 reads in order, which no mask parts: in an update each chain is a row of its own behind"]
    assert [str(one.message)[: len(expected[0])] for one in found] == expected * (not model.family.PACKS)


def test_qwen3_5_is_told_times_in_words():
    """The layout is that of Qwen3-VL."""
    text, other = (
        model.chat.tokenizer.decode(prompts_of(model, [0])["input_ids"][0])
        for model in (build("qwen3_5"), build("qwen3_vl"))
    )
    first, second = (f"<{time} seconds><|vision_start|>{'<|video_pad|>' * 4}<|vision_end|>" for time in (0.5, 2.5))
    assert text.startswith(f"<|im_start|>user\n{first}{second}Judge whether the video shows: a red ball<|im_end|>")
    assert text == other


@pytest.mark.parametrize("part", BACKBONE_PARTS)
def test_a_part_moves_and_nothing_else(model, part):
    moving = copy.deepcopy(model)
    set_trainable(moving, table(**{part: "full"}), precision=torch.float32)
    assert step(moving, table(**{part: "full"})) == of_part(moving, part)


@pytest.mark.parametrize("part", BACKBONE_PARTS)
def test_every_linear_layer_of_a_part_has_an_adapter(model, part):
    adapted = copy.deepcopy(model)
    linear = {
        name
        for name, module in adapted.backbone.named_modules()
        if is_linear(module) and f"backbone.{name}.weight" in of_part(adapted, part)
        if len(module.weight) > 1  # a gate
    }
    set_trainable(adapted, table(**{part: "lora"}), precision=torch.float32)
    adapters = {name.split(".lora_")[0] for name, _ in adapted.backbone.named_parameters() if ".lora_" in name}
    assert {name for name in adapters if not is_idle(f"{name}.")} == linear - {"lm_head"}


def test_a_saved_model_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    opened = DescoreModel.from_pretrained(tmp_path / "saved", device="cpu")
    for name, weight in opened.named_parameters():
        assert torch.equal(weight, model.get_parameter(name)), name
    expected = think_and_score(model, prompts_of(model), limit=12)
    assert_written_alike(opened, expected)
    if model.family.EXPORTS:
        export_for_vllm(tmp_path / "saved", tmp_path / "exported", dtype=torch.float32)
        assert_written_alike(DescoreModel.from_pretrained(tmp_path / "exported", device="cpu"), expected)
    else:
        with pytest.raises(ConfigError, match="was tried with no engine but native, so it is not exported"):
            export_for_vllm(tmp_path / "saved", tmp_path / "exported", dtype=torch.float32)
        with pytest.raises(ConfigError, match="was tried with no engine but native; open it with engine native"):
            open_export(tmp_path / "saved", paradigm="generative")
    judge = DescoreModel.from_pretrained(tmp_path / "saved", device="cpu", paradigm="generative")
    [chain] = think_and_score(judge, prompts_of(judge, [0]), limit=12)[0]
    assert (chain.token_ids, chain.rewards) == (expected[0][0].token_ids, {})


def test_a_judge_reads_what_it_writes(model, tmp_path):
    marks = {"subject": 2, "dynamics": 1, "camera": None, "environment": 0, "style": 2}
    answer = write_answer(Verdict(marks=marks, overall=3.25))
    tell(copy.deepcopy(model), answer).save_pretrained(tmp_path / "told")
    judge = Scorer.from_pretrained(tmp_path / "told", device="cpu", paradigm="generative")
    clips = [(noise_clip(0), "a red ball"), (noise_clip(1, frames=6), "a longer prompt")]
    for result in judge.score_batch(clips, samples=2, temperature=1.0):
        assert (result.thinking, result.reward, result.std) == (answer, 3.25, 0.0)
        assert result.verdict.marks == marks


def assert_written_alike(model, expected):
    """Experts that were read from a file may lie otherwise in memory, and be summed in another order."""
    found = think_and_score(model, prompts_of(model), limit=12)
    written, again = ([[c.token_ids for c in of_clip] for of_clip in each] for each in (expected, found))
    assert again == written
    torch.testing.assert_close(rewards_of(found), rewards_of(expected), atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_the_three_stages_move_what_they_should(model, tmp_path):
    make_data(tmp_path)
    model.save_pretrained(tmp_path / "micro")
    write_table(tmp_path / "marked.csv", marked_rows())
    before = dict(model.named_parameters())

    def moved(out):
        after = DescoreModel.from_pretrained(out / "model", device="cpu")
        merge_adapters(after.backbone)
        return {name for name, weight in after.named_parameters() if not torch.equal(weight, before[name])}

    projections = {
        name
        for name in before
        if name.startswith(tuple(f"backbone.{prefix}" for prefix in model.family.PARTS["language_model"]))
        and name.endswith(tuple(f".{target}.weight" for target in model.family.LORA_TARGETS["language_model"]))
    }
    train_sft(make_config(tmp_path, tmp_path / "sft", "optim.max_steps=2"))
    train_cold_start(make_cold_config(tmp_path, tmp_path / "cold", "optim.max_steps=2"))
    train_rl(make_rl_config(tmp_path, tmp_path / "rl", "optim.max_steps=2"))
    assert moved(tmp_path / "sft") == projections
    assert moved(tmp_path / "cold") == projections | {"query", "head.weight"}
    assert moved(tmp_path / "rl") == projections | {"query", "head.weight"}


def at(times):
    """A clip with frames at these times, in seconds."""
    clip = noise_clip(0, frames=len(times), width=32, height=16)
    return replace(clip, times=tuple(times))


def test_qwen2_5_tells_times_by_positions():
    model = build("qwen2_5_vl")
    # Four frames, two to a vision step, half a second apart: steps are a second, and two positions, apart.
    inputs = model.chat.lay_out_prompts([at([0, 0.5, 1, 1.5]), at([0, 2, 4, 6])], ["a", "a"])
    position_3BT = model.family.positions(model.backbone, inputs)
    is_video_BT = inputs["mm_token_type_ids"] == 2
    start = int(is_video_BT[0].nonzero()[0])
    for row, step_positions in ((0, 2), (1, 8)):
        time, height, width = (position_3BT[axis, row][is_video_BT[row]] - start for axis in range(3))
        assert time.tolist() == [0, 0, step_positions, step_positions]
        assert height.tolist() == [0, 0, 0, 0]
        assert width.tolist() == [0, 1, 0, 1]
        behind = position_3BT[:, row, int(is_video_BT[row].nonzero()[-1]) + 1 :]
        first = start + max(step_positions, 1) + 1
        assert torch.equal(behind, torch.arange(first, first + behind.shape[1]).expand(3, -1))


def test_qwen2_is_told_no_times():
    model = build("qwen2_vl")
    slow, fast = (
        model.family.positions(model.backbone, model.chat.lay_out_prompts([at(times)], ["a"]))
        for times in ([0, 2, 4, 6], [0, 0.1, 0.2, 0.3])
    )
    assert torch.equal(slow, fast)


@pytest.mark.parametrize("model_type", TYPES)
def test_positions_are_transformers_where_these_are_right(model_type):
    """They are while no frame is later than the picture is wide: see `positions`."""
    model = build(model_type)
    clips = [replace(noise_clip(1, frames=4, width=64, height=64), times=(0.0, 0.5, 1.0, 1.5)), noise_clip(2, frames=1)]
    inputs = model.chat.lay_out_prompts(clips, ["a red ball", "left and left"])
    others = {name: value for name, value in inputs.items() if name != "pixel_values_videos"}
    expected_3BT, _ = model.backbone.model.get_rope_index(**others)
    read = inputs["attention_mask"].bool()
    assert torch.equal(model.family.positions(model.backbone, inputs)[:, read], expected_3BT[:, read])


def test_frames_are_whole_patches_unless_settings_say_otherwise():
    def multiple(patch, **settings):
        tokenizer = small_tokenizer(["a"], vocabulary=300)
        processor, config = qwen2_5_vl(tokenizer, patch=patch)
        model = DescoreModel.from_backbone(config, processor=processor, settings=CheckpointSettings(**settings))
        return model.settings.sampling.size_multiple

    assert multiple(8) == multiple(16) == 32
    assert multiple(14) == 28  # that of the released models
    assert multiple(14, sampling=VideoSampling(size_multiple=56)) == 56


def test_the_video_has_one_wrapper():
    model = build("qwen2_5_vl")
    text = model.chat.tokenizer.decode(prompts_of(model, [0])["input_ids"][0])
    video = "<|video_pad|>" * 8
    assert text == (
        f"<|im_start|>user\n<|vision_start|>{video}<|vision_end|>Judge whether the video shows: a red ball<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert QUERY_TOKEN not in text


def test_an_unknown_type_is_refused_with_all_that_are_known():
    known = [model_type for name in FAMILIES for model_type in family_of(name).MODEL_TYPES]
    with pytest.raises(ConfigError, match=rf"model_type is 'llava'; expected one of {', '.join(known)}$"):
        family_of("llava")


def test_features_in_pieces_stand_for_pixels(model, monkeypatch):
    """A piece for each pair of frames; all that reads pixels reads these."""
    prompts = prompts_of(model)
    positions = model.family.positions(model.backbone, prompts)
    monkeypatch.setattr(qwen3_vl, "MOST_PATCHES", 1)
    with torch.no_grad():
        encoded = model.family.encode_vision(model.backbone, prompts)
        hidden = [
            model.family.last_hidden(model.backbone, inputs, position_ids=positions)[:, -1]
            for inputs in (prompts, encoded)
        ]
    assert "pixel_values_videos" not in encoded
    torch.testing.assert_close(*hidden, atol=1e-5, rtol=1e-5)


def test_steps_of_each_family_can_be_recorded(model):
    """As a CUDA graph is captured, on the CPU (see test_decoding.py). Linear attention goes by the plain loop."""
    calls = []
    graphs = recorded(compiler=lambda function: lambda *args: calls.append(function.__name__) or function(*args))
    if model.family.ROW_STATES is not None:
        assert graphs.describe(model).startswith("plain loop: its linear attention has states")
        return
    how = {"which": [0, 1], "limit": 20, "clips": clips_of(model)}
    assert_equal(write(model, graphs, **how)[:2], write(model, None, **how)[:2])
    assert graphs.steps
    # Releases of transformers differ in the second name.
    assert {name.replace("multimodal_", "") for name in calls} == {"forward", "apply_rotary_pos_emb"}


@pytest.mark.parametrize("model_type", ["internvl", *SLOW[2:4]])
def test_squares_are_read_as_transformers_reads_them(model_type):
    """Its processor's pixels, and its own forward, which takes one clip at a time."""
    model = build(model_type)
    for clip, prompt in zip(clips_of(model), PROMPTS, strict=True):
        inputs = model.chat.lay_out_prompts([clip], [prompt])
        frames, text = torch.from_numpy(clip.frames).permute(0, 3, 1, 2), model.chat.user_turn(prompt)
        sampled = {"do_resize": False, "do_sample_frames": False, "video_metadata": [video_metadata(clip)]}
        others = model.chat.processor(text=[text], videos=[[frames]], return_tensors="pt", **sampled)
        others.pop("attention_mask"), others.pop("input_ids")
        pixels = next(iter(others.values()))
        assert torch.equal(pixels.flatten(0, -4), inputs["pixel_values_videos"])
        with torch.no_grad():
            expected = model.backbone.model(input_ids=inputs["input_ids"], **others).last_hidden_state
            torch.testing.assert_close(model.hidden(inputs), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_internvl_numbers_its_frames():
    model = build("internvl")
    text = model.chat.tokenizer.decode(prompts_of(model, [0])["input_ids"][0])
    frame = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"
    frames = "".join(f"Frame-{i}: {frame}\n" for i in (1, 2, 3, 4))
    assert text == (
        f"<|im_start|>user\n{frames}Judge whether the video shows: a red ball<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("model_type", SQUARE)
def test_frames_of_another_size_are_refused(model_type):
    model = build(model_type)
    with pytest.raises(VideoError, match="frames of 64x48 pixels; expected 32x32: sample with size_multiple 32 and"):
        model.chat.lay_out_prompts([CLIPS[1]], ["x"])


@pytest.mark.parametrize("model_type", SQUARE)
def test_sampling_makes_squares(model_type):
    """Of any picture, unless settings say otherwise."""
    model = build(model_type)
    backbone = {"source": model.backbone.config, "processor": model.chat.processor}
    settings = CheckpointSettings(sampling=VideoSampling(fps=4.0))
    sampling = DescoreModel.from_backbone(**backbone, settings=settings).settings.sampling
    assert sampling.fps == 4.0
    assert {fit_size(*size, sampling=sampling) for size in ((1280, 720), (9, 1800), (32, 32))} == {(32, 32)}
    own = CheckpointSettings(sampling=VideoSampling(size_multiple=16))
    assert DescoreModel.from_backbone(**backbone, settings=own).settings.sampling == own.sampling


@pytest.mark.parametrize("model_type", SQUARE)
def test_a_prompt_cannot_place_the_video(model_type):
    model = build(model_type)
    placeholder = model.chat.processor.video_token
    inputs = model.chat.lay_out_prompts(clips_of(model)[:1], [f"a {placeholder} <image> <IMG_CONTEXT> ball"])
    plain = model.chat.lay_out_prompts(clips_of(model)[:1], ["a ball"])
    assert torch.equal(inputs["mm_token_type_ids"].sum(), plain["mm_token_type_ids"].sum())


def test_what_does_not_belong_together_is_refused():
    model = build("internvl")
    processor, config = model.chat.processor, model.backbone.config
    with pytest.raises(CheckpointError, match="the processor: it does not belong to this backbone"):
        DescoreModel.from_backbone(config, processor=build("qwen2_vl").chat.processor)
    config.text_config.layer_types = ["full_attention", "sliding_attention"]
    processor.image_seq_length = 5
    assert [fault.split(";")[0] for fault in model.family.misfits(config, processor)] == [
        "its language model has a sliding window",
        "image_seq_length of the processor is 5",
    ]


def test_attention_of_another_kind_is_refused():
    """GPT-OSS attends to sinks as well, which shared prompts would leave out."""
    processor, config = internvl(small_tokenizer(["a"], vocabulary=300), text="gpt_oss")
    with pytest.raises(CheckpointError, match="its language model is 'gpt_oss'; expected one of qwen2, qwen3, "):
        DescoreModel.from_backbone(config, processor=processor)


def test_smolvlm_tells_minute_and_second_in_words():
    model = build("smolvlm")
    clips = [replace(clips_of(model)[0], times=(0.0, 0.5, 1.0, 61.0), duration=62.9), clips_of(model)[2]]
    texts = model.chat.tokenizer.batch_decode(model.chat.lay_out_prompts(clips, ["a red ball"] * 2)["input_ids"])
    frame = "<fake_token_around_image><global-img>" + "<image>" * 4 + "<fake_token_around_image>"
    frames = "".join(f"\nFrame from {time}:{frame}" for time in ("00:00", "00:00", "00:01", "01:01"))
    assert texts[0] == (
        "<|im_start|>User: You are provided the following series of four frames from a 0:01:02 [H:MM:SS] video.\n"
        f"{frames}\n\nJudge whether the video shows: a red ball<end_of_utterance>\nAssistant:"
    )
    assert "series of one frames from a 0:00:01" in texts[1], "also beside a longer clip"


def test_a_frame_of_even_grey_is_a_frame_to_smolvlm():
    """Its pixels are all 0 once normalized, as those of transformers' padding."""
    model = build("smolvlm")
    clip = clips_of(model)[0]
    inputs = model.chat.lay_out_prompts([clip], ["x"])
    inputs["pixel_values_videos"][1] = 0.0
    with torch.no_grad():
        encoded = model.family.encode_vision(model.backbone, inputs)
    assert len(encoded["vision_features"]) == len(clip.times)


def test_llava_onevision_tells_times_in_a_sentence():
    model = build("llava_onevision")
    clip = replace(clips_of(model)[0], times=(0.0, 0.5, 1.0, 2.25), duration=2.5)
    [text] = model.chat.tokenizer.batch_decode(model.chat.lay_out_prompts([clip], ["a red ball"])["input_ids"])
    # Of each frame 4 x 4 patches, pooled to 2 x 2; one token behind all.
    assert text == (
        f"<|im_start|>user\n{'<video>' * 17}\n"
        "The video lasts for 2.50 seconds, and 4 frames are uniformly sampled from it. These frames are located at "
        "0.00s,0.50s,1.00s,2.25s.Please answer the following questions related to this video.\n"
        "Judge whether the video shows: a red ball<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.slow
def test_without_num2words_smolvlm_says_what_to_install(tmp_path, monkeypatch):
    build("smolvlm").chat.processor.save_pretrained(tmp_path)
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    with pytest.raises(CheckpointError, match=r"cannot open the processor: .*`pip install num2words`"):
        open_processor(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MIXTURES)
def test_these_are_mixtures_of_experts(model_type):
    model = build(model_type)
    experts = expert_weights(model.backbone)
    assert {len(weight) for weight in experts.values()} == {4}
    assert len(experts) == 2 * len(model.backbone.get_decoder().layers)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", *SQUARE])
def test_a_token_is_made_of_so_many_pixels(model_type):
    """All pixels of a clip whose frames fill whole vision steps, over its tokens."""
    model = build(model_type)
    inputs = model.chat.lay_out_prompts([noise_clip(0, width=32, height=32)], ["x"])
    tokens = int((inputs["mm_token_type_ids"] == 2).sum()) // 4 * 4  # without the one behind LLaVA's frames
    assert model.family.values_of_token(model.backbone.config) == inputs["pixel_values_videos"].numel() // tokens
