"""The closing line of a training says what is known, and no more."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import descore.cli  # noqa: F401  # has the module below


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "trained: model (no decided pair)"),
        ({"step": 1200, "loss": 0.5}, "trained: model (step 1,200, loss 0.500, no decided pair)"),
        (
            {"eval_pairs": 6, "eval_pairs_without_score": 6, "eval_none_pairs_scored": 0, "eval_none_pairs_decided": 0},
            "trained: model (no decided pair; held out: scored 0 of 6, no score without chains)",
        ),
        (
            {"eval_pairs": 6, "eval_pairs_without_score": 1, "eval_none_pairs_scored": 5, "eval_none_pairs_decided": 0},
            "trained: model (no decided pair; held out: scored 5 of 6, no decided pair without chains)",
        ),
        ({"step": 2, "loss": 0.5, "pair_accuracy": 1.0}, "trained: model (step 2, loss 0.500, 100.0% of pairs right)"),
    ],
)
def test_what_is_not_known_is_left_out(metrics, said, capsys):
    module = sys.modules["descore.cli.train"]  # by its module's name: in `descore.cli`, `train` is the sub-command
    trained = SimpleNamespace(model=Path("model"), metrics=metrics, unreadable=0, before=False)
    module._print_summary(trained, figures=module._pair_accuracy, held_out=module._held_out_pairs, next_step="look")
    assert capsys.readouterr().out.splitlines() == [said, "next: look"]
