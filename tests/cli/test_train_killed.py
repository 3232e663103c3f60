"""What a kill in the middle of a write left behind does not stop the next run."""

import json
import shutil

import pytest


@pytest.mark.filterwarnings("ignore::descore.errors.DescoreWarning")  # of a head that was never trained, and the like
def test_half_a_line_of_chains_is_cut_off_and_the_page_is_written(descore, films, model, tmp_path):
    (a, b, _), _, _ = films
    (tmp_path / "pairs.csv").write_text(f"prompt,video_a,video_b,preference\na red ball,{a},{b},a\n")
    settings = {
        "model": {"checkpoint": model, "precision": "float32"},
        "data": {"train": str(tmp_path / "pairs.csv"), "dataloader_num_workers": 0},
        "rollout": {"num_generations": 2},
        "optim": {"max_steps": 1},
        "run": {"out": str(tmp_path / "run")},
    }
    (tmp_path / "rl.yaml").write_text(json.dumps(settings))
    out, command = tmp_path / "run", ("train", "rl", tmp_path / "rl.yaml")
    assert descore(*command).exit_code == 0
    whole = (out / "chains.jsonl").read_text()
    (out / "chains.jsonl").write_text(whole[:-20])
    for folder in ("model", "checkpoint-1"):
        shutil.rmtree(out / folder)
    (out / "chains.html").unlink()
    again = descore(*command)
    assert again.exit_code == 0, again.stderr
    kept = whole.splitlines()[:-1] + whole.splitlines()
    assert (out / "chains.jsonl").read_text().splitlines() == kept
    assert (out / "chains.html").is_file()
