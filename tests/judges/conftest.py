"""A Qwen2.5-VL that writes what it is told, as a released judge writes."""

import pytest
from tests.model.families import qwen2_5_vl
from tests.scripted_backbone import save_told

from descore.model.small import small_tokenizer

VISUAL, ALIGNMENT, PHYSICS = "visual quality: ", "\ntext-to-video alignment: ", "\nphysical/common-sense consistency: "
VIDEOSCORE2 = {
    (VISUAL, "4", ALIGNMENT, "3", PHYSICS, "5"): 0.5,
    (VISUAL, "4", ALIGNMENT, "1", PHYSICS, "5"): 0.1,
    (VISUAL, "2", ALIGNMENT, "3", PHYSICS, "5"): 0.4,
}
"""Visual quality is 4 with a probability of .6 and 2 with .4, alignment 3 with .9 and 1 with .1."""


def plain_qwen2_5_vl(pieces):
    tokenizer = small_tokenizer(["visual quality of a generated video"], vocabulary=290)
    tokenizer.add_tokens(pieces)
    return qwen2_5_vl(tokenizer)


@pytest.fixture(scope="package")
def told(tmp_path_factory):
    """Writes a plain Qwen2.5-VL directory that writes these chains."""

    def save(name, chains):
        return save_told(tmp_path_factory.mktemp("told") / name, chains, build=plain_qwen2_5_vl)

    return save


@pytest.fixture(scope="package")
def videoscore2(told):
    return told("VideoScore2", VIDEOSCORE2)
