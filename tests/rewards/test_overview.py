"""What a page shows of a scored table: failures, best and worst with frames, rewards by source."""

import numpy as np
import pytest

from descore.errors import ConfigError
from descore.rewards.overview import read_overview
from descore.video.encoder import write_mp4
from tests.conftest import noise_clip
from tests.rewards.made_scores import scored, write


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three prompts: one of three clips, one of a single clip whose file is gone, one without a reward."""
    folder = tmp_path_factory.mktemp("overview")
    for number in range(3):
        write_mp4(folder / f"{number}.mp4", noise_clip(number, frames=6, width=64, height=48).frames, fps=4)
    rows = [
        scored("a cat", "0.mp4", 1.0, source="wan"),
        scored("a cat", "1.mp4", 3.0, source="svd", std=0.5, samples=4),
        scored("a dog", "gone.mp4", 0.0, source="svd"),
        scored("a cat", "2.mp4", 1.5, source="wan"),
        scored("a fox", "3.mp4", None, source="wan"),
    ]
    return write(folder / "scores.jsonl", rows)


def test_best_and_worst_with_their_frames(table):
    cat, dog = read_overview(table, prompts=5).prompts
    assert (cat.best.name, cat.worst.name, cat.clips, cat.lead.margin) == ("1.mp4", "0.mp4", 3, 2.0)
    assert cat.best.clip.size == (64, 48)
    assert cat.best.row.chain == "about 1.mp4"
    assert (dog.worst, dog.lead, dog.best.clip, dog.best.error) == (None, None, None, "no such file")


def test_rewards_by_source_the_highest_mean_first(table):
    overview = read_overview(table, prompts=5)
    rewards = {name: values.tolist() for name, values in overview.rewards.items()}
    assert list(rewards.items()) == [("svd", [3.0, 0.0]), ("wan", [1.0, 1.5])]
    assert (overview.column, overview.failed, overview.rows) == ("source", {"wan": 1}, 5)
    assert [one.video for one in overview.left_out] == ["3.mp4"]


def test_a_named_column_or_none(table, tmp_path):
    assert list(read_overview(table, prompts=1, column="samples").rewards) == ["4", "1"]
    plain = write(tmp_path / "plain.csv", [scored("p", "a.mp4", 1.0)])
    overview = read_overview(plain, prompts=1)
    assert (overview.column, list(overview.rewards)) == (None, ["all clips"])
    assert np.array_equal(overview.rewards["all clips"], [1.0])
    with pytest.raises(ConfigError, match=r"no column 'sources' \(is it 'source'\?\); it has prompt, video"):
        read_overview(table, prompts=1, column="sources")


def test_only_so_many_prompts_are_opened(table):
    overview = read_overview(table, prompts=1)
    assert ([shown.prompt for shown in overview.prompts], overview.of_prompts) == (["a cat"], 2)
