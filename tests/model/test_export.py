"""An exported checkpoint gives its rewards as logits: to a plain transformers model and to descore. Everything is in
float32 unless it says otherwise; sums in another order differ by a few 1e-7, 1e-5 is asked."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import RUBRIC, build_micro, noise_clip
from tests.model.official_cases import adapted, inputs_for

from descore import Scorer
from descore.errors import CheckpointError, ConfigError
from descore.model.checkpoint import HEAD_FILE, CheckpointSettings, VocabularyRows, read_settings
from descore.model.convert_official import convert_official
from descore.model.export import export_for_vllm
from descore.model.generation import suppressed_token_ids
from descore.model.modeling import DescoreModel, has_adapters, open_processor

NAMES = ("quality", "alignment")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint with tied embeddings and a head of two dimensions."""
    folder = tmp_path_factory.mktemp("source") / "micro"
    model = build_micro(dimensions=NAMES)
    model.settings = model.settings.model_copy(update={"trained_on": "a test"})
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    return export_for_vllm(source, tmp_path_factory.mktemp("exported") / "vllm")


@pytest.fixture
def copy(source, tmp_path):
    """A copy of the source that a test may break."""
    return copied(source, tmp_path / "copy")


def copied(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(file, *keys, **changes):
    """Set values of the object at these keys of a JSON file; None takes one away."""
    content = json.loads(file.read_text())
    inner = content
    for key in keys:
        inner = inner[key]
    inner.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del inner[key]
    file.write_text(json.dumps(content))


@torch.no_grad()
def plain_logits(folder, inputs, **options):
    """The last column's logits (B, V) of transformers' own model, which lays out positions by itself."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **options).eval()
    return model(**{key: value for key, value in inputs.items() if key != "chain_mask"}).logits[:, -1]


def rewards_by_logits(logits_BV, rows):
    summed = [logits_BV[:, rows.hi[name]] + logits_BV[:, rows.lo[name]] for name in rows.hi]
    return rows.scale * torch.stack(summed, dim=1)


def assert_same_by_logits(folder, model, rows):
    inputs = inputs_for(model)
    with torch.no_grad():
        rewards_BK = model(inputs)
    assert not torch.equal(rewards_BK[0], rewards_BK[1])
    torch.testing.assert_close(rewards_by_logits(plain_logits(folder, inputs), rows), rewards_BK, atol=1e-5, rtol=0)


def test_a_plain_model_gives_the_reward_as_logits(source, exported):
    assert_same_by_logits(exported.folder, DescoreModel.from_pretrained(source), exported.rows)


def test_log_probabilities_give_it_too(source, exported):
    """hi + lo - 2 zero: the normalizer is in each of them once, and cancels."""
    model, rows = DescoreModel.from_pretrained(source), exported.rows
    inputs = inputs_for(model)
    logprobs_BV = plain_logits(exported.folder, inputs).log_softmax(dim=-1)
    found_BK = rewards_by_logits(logprobs_BV, rows) - 2 * rows.scale * logprobs_BV[:, [rows.zero]]
    # log_softmax rounds numbers about 6, and the scale makes 64 times as much of that
    torch.testing.assert_close(found_BK, model(inputs).detach(), atol=64 * 4 * 6 * 2**-24, rtol=1e-6)


def test_a_scorer_knows_an_export(source, exported):
    before, after = (Scorer.from_pretrained(folder).model for folder in (source, exported.folder))
    assert torch.equal(before.query, after.query)
    assert torch.equal(before.head.weight, after.head.weight)
    ours, theirs = (
        Scorer.from_pretrained(folder).score(noise_clip(0), prompt="a red ball") for folder in (source, exported.folder)
    )
    assert ours.completions[0].token_ids == theirs.completions[0].token_ids
    assert ours.completions[0].rewards == theirs.completions[0].rewards


def test_its_descore_json_names_the_rows(exported):
    content = json.loads((exported.folder / "descore.json").read_text())
    tokens = 300 - 8 + 1  # small_tokenizer leaves 8 entries for others, the query is one
    assert content["schema"] == 1
    assert content["vocabulary_rows"] == {
        "scale": 64.0,
        "query": tokens - 1,
        "zero": tokens,
        "hi": {"quality": tokens + 1, "alignment": tokens + 2},
        "lo": {"quality": tokens + 3, "alignment": tokens + 4},
    }
    assert read_settings(exported.folder) == exported.settings
    assert not (exported.folder / HEAD_FILE).exists()  # engines read every safetensors file


def test_no_text_and_no_chain_holds_a_row(exported):
    model = DescoreModel.from_pretrained(exported.folder)
    vocabulary = model.chat.tokenizer.get_vocab().values()
    assert not set(exported.rows.ids) & set(vocabulary)
    assert set(exported.rows.ids) <= set(suppressed_token_ids(model))
    assert exported.rows.query in suppressed_token_ids(model)


def test_all_other_weights_are_as_they_were(source, exported):
    before, after = (load_file(folder / "model.safetensors") for folder in (source, exported.folder))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.language_model.embed_tokens.weight"}
    [name] = changed
    rows = (before[name] != after[name]).any(dim=1).nonzero().flatten().tolist()
    assert rows == sorted([exported.rows.query, *exported.rows.ids])


def test_settings_look_as_before_to_older_runs(exported):
    """Runs of descore score keep a digest of repr(settings)."""
    assert "vocabulary_rows" not in repr(exported.settings)


def test_saved_again_it_has_a_head_of_its_own(exported, tmp_path):
    model = DescoreModel.from_pretrained(exported.folder)
    with torch.no_grad():
        model.head.weight.mul_(2)  # as if it had been trained on: the rows are no longer the head
    model.save_pretrained(tmp_path / "again")
    assert "vocabulary_rows" not in (tmp_path / "again" / "descore.json").read_text()
    assert torch.equal(DescoreModel.from_pretrained(tmp_path / "again").head.weight, model.head.weight)


def test_in_bfloat16_the_head_keeps_16_bits(source, tmp_path):
    half = export_for_vllm(source, tmp_path / "half", dtype=torch.bfloat16)
    assert {weight.dtype for weight in load_file(half.folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((half.folder / "config.json").read_text())["dtype"] == "bfloat16"
    before, after = DescoreModel.from_pretrained(source), DescoreModel.from_pretrained(half.folder)
    # two roundings to 8 bits each
    torch.testing.assert_close(after.head.weight, before.head.weight, atol=0, rtol=2.0**-17)
    assert torch.equal(after.query, before.query.bfloat16().float())


def test_a_float32_export_opened_in_bfloat16_is_the_other(source, exported, tmp_path):
    """hi is rounded to bfloat16 in either, so that an engine's own rounding finds nothing left of it."""
    half = export_for_vllm(source, tmp_path / "half", dtype=torch.bfloat16)
    name = "model.language_model.embed_tokens.weight"
    theirs, ours = (load_file(each.folder / "model.safetensors")[name] for each in (half, exported))
    assert torch.equal(theirs, ours.bfloat16())


def test_bfloat16_is_kept_where_a_checkpoint_has_it(tmp_path):
    model = build_micro()
    model.backbone.bfloat16()
    model.save_pretrained(tmp_path / "source")
    export = export_for_vllm(tmp_path / "source", tmp_path / "out")
    assert export.dtype == torch.bfloat16
    before = load_file(tmp_path / "source" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before if "embed_tokens" not in name)


@pytest.mark.slow
def test_adapters_are_merged_and_matrices_may_be_two(tmp_path):
    """A checkpoint in shards, with an adapter, without tied embeddings, and without a row to spare: it is refused, made
    larger as the message says, and then exported."""
    theirs = adapted(tmp_path / "theirs")
    convert_official(theirs.folder, tmp_path / "ours", rubric=RUBRIC, layout="chain, end of turn, query")
    rows = theirs.model.get_base_model().get_input_embeddings().weight.shape[0]
    refused = rf"ours: needs 3 rows .* has 0 \({rows} rows, {rows} tokens\); add some: in Python, model.backbone"
    with pytest.raises(CheckpointError, match=refused + rf".resize_token_embeddings\({rows + 3}\)"):
        export_for_vllm(tmp_path / "ours", tmp_path / "out")
    model = DescoreModel.from_pretrained(tmp_path / "ours")
    model.backbone.resize_token_embeddings(rows + 3)
    model.save_pretrained(tmp_path / "larger")
    before = {file.name: file.read_bytes() for file in (tmp_path / "larger").iterdir()}
    exported = export_for_vllm(tmp_path / "larger", tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "larger").iterdir()} == before
    assert not list((tmp_path / "out").glob("adapter*"))
    opened = DescoreModel.from_pretrained(tmp_path / "larger")
    assert has_adapters(opened.backbone)
    assert not opened.backbone.config.tie_word_embeddings
    assert_same_by_logits(tmp_path / "out", opened, exported.rows)
    again = DescoreModel.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(again(inputs_for(again)), opened(inputs_for(opened)), atol=1e-5, rtol=0)


def test_what_engines_read_otherwise_is_refused(copy, tmp_path):
    edit(copy / "config.json", "text_config", "rope_parameters", mrope_interleaved=None)
    with pytest.raises(CheckpointError, match=r"config\.json: mrope_interleaved .* is None; expected true"):
        export_for_vllm(copy, tmp_path / "out")
    edit(copy / "config.json", "text_config", "rope_parameters", mrope_interleaved=True)
    edit(copy / "processor_config.json", "image_processor", image_std=[0.26, 0.26, 0.27])
    with pytest.raises(CheckpointError, match=r"image_std of the image processor is \(0\.26, .*; set the first"):
        export_for_vllm(copy, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_what_has_no_head_to_export_is_refused(copy, exported, tmp_path):
    with pytest.raises(CheckpointError, match="is exported already"):
        export_for_vllm(exported.folder, tmp_path / "out")
    edit(copy / "descore.json", paradigm="generative", dimensions=["overall"])
    with pytest.raises(CheckpointError, match="is generative and has no head"):
        export_for_vllm(copy, tmp_path / "out")


def test_a_head_with_a_bias_is_refused(copy, tmp_path):
    """A row of the vocabulary has none."""
    save_file({**load_file(copy / HEAD_FILE), "bias": torch.ones(2)}, copy / HEAD_FILE)
    with pytest.raises(CheckpointError, match=r"reward_head\.safetensors: found .*'bias': \(2,\)"):
        export_for_vllm(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_refused(source, exported, tmp_path):
    with pytest.raises(ConfigError, match="exists already; choose another"):
        export_for_vllm(source, exported.folder)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is no folder"):
        export_for_vllm(source, tmp_path / "file" / "such")


@pytest.mark.parametrize(
    ("keys", "changes", "message"),
    [
        ((), {"zero": 5000}, "vocabulary_rows names row 5000, the vocabulary has 320"),
        ((), {"zero": 7}, "row 7 is not zero"),
        ((), {"scale": 0.0}, "scale must be positive"),
        (("lo",), {"alignment": None}, "lo names ['quality'], expected the dimensions of hi, ['quality', 'alignment']"),
        (("lo",), {"alignment": 293}, "a row is taken twice"),
        ((), {"zeros": 1}, "zeros unknown key; did you mean vocabulary_rows.zero?"),
    ],
)
def test_rows_that_do_not_fit_are_one_line(exported, tmp_path, keys, changes, message):
    broken = copied(exported.folder, tmp_path / "broken")
    edit(broken / "descore.json", "vocabulary_rows", *keys, **changes)
    with pytest.raises(CheckpointError) as fault:
        DescoreModel.from_pretrained(broken)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_rows_and_dimensions_are_the_same():
    rows = VocabularyRows(scale=64.0, query=1, zero=2, hi={"quality": 3}, lo={"quality": 4})
    with pytest.raises(ConfigError, match=r"has \['quality'\], expected each dimension in order"):
        CheckpointSettings(dimensions=NAMES, vocabulary_rows=rows)


def test_small_models_are_what_every_engine_reads(micro):
    assert micro.backbone.config.get_text_config().rope_parameters["mrope_interleaved"] is True
    image, video = micro.chat.processor.image_processor, micro.chat.processor.video_processor
    assert list(image.image_mean) == list(video.image_mean) == [0.5] * 3
    assert list(image.image_std) == list(video.image_std) == [0.5] * 3


def test_a_server_needs_no_wishes_for_frames_and_turns(exported):
    processor = open_processor(exported.folder)
    assert (processor.video_processor.do_resize, processor.video_processor.do_sample_frames) == (False, False)
    content = [{"type": "video"}, {"type": "text", "text": "what is it?"}]
    turn = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert f"{processor.video_token}what" in turn
    assert processor.vision_start_token not in turn
