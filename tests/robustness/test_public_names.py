"""The public names, a score as a dict and in a notebook, and quiet library calls."""

import json

import pytest
from transformers.utils import logging

import descore
from descore.evaluation.records import KEYS, to_record
from tests.report.test_cards import score_of
from tests.test_architecture import CLIP


@pytest.mark.parametrize("name", descore.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(descore, name) is not None


def test_a_score_as_a_dict_is_its_record():
    score = score_of()
    made = score.to_dict()
    assert tuple(made) == KEYS
    assert made == to_record(score, video=score.clip.source, prompt=score.prompt, model=score.model)
    json.dumps(made, allow_nan=False)


def test_a_score_in_a_notebook_is_escaped():
    shown = score_of(prompt="<script>alert(1)</script>")._repr_html_()
    assert "data:image/jpeg;base64," in shown
    assert "<script" not in shown


def test_opening_a_model_shows_no_bar_and_keeps_the_setting(capfd):
    logging.enable_progress_bar()
    scorer = descore.Scorer.from_pretrained("tiny")
    assert "Loading" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
    frames = descore.read_clip(CLIP, sampling=scorer.model.settings.sampling).frames
    [one] = scorer.score_batch([(frames, "a rabbit")], fps=4, think="off")
    [same] = scorer.score_batch([descore.Request(video=frames, prompt="a rabbit", fps=4)], fps=8, think="off")
    assert one.reward == same.reward
