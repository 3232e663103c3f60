"""A description's parts are read from its words, and shares are counted by hand."""

from math import isnan

from experiments.described import PARTS, parts_of, shares

from descore.synthetic.splits import Split, plan_example

SAID = (
    "I see one small red cross, flat, on a beach at dusk. It moves left fast. The camera is still. "
    "The picture is sharp. The motion is smooth."
)


def test_parts_by_hand():
    assert parts_of(SAID) == {
        "count": "one",
        "size": "small",
        "colour": "red",
        "shape": "cross",
        "style": "flat",
        "setting": "on a beach",
        "light": "at dusk",
        "action": "moves left",
        "speed": "fast",
        "camera": "is still",
        "picture": "sharp",
        "motion": "smooth",
    }


def test_what_stands_has_no_speed_and_footage_no_part():
    assert parts_of(SAID.replace("moves left fast", "stands still"))["speed"] is None
    assert parts_of("I see footage of an animal. The picture is sharp.") == dict.fromkeys(PARTS)


def test_every_true_description_is_read_and_right():
    truths = [parts_of(plan_example(Split.TRAIN, index).chain) for index in range(300)]
    for part in PARTS:
        count, share, balanced = shares([(true, true) for true in truths], part)
        assert (share, balanced) == (1, 1)
        assert count == 300 if part != "speed" else 0 < count < 300


def test_one_word_for_all_is_half_of_two_values():
    slow, fast = (parts_of(SAID.replace("fast", word)) for word in ("slowly", "fast"))
    assert shares([(slow, slow), (slow, slow), (fast, slow)], "speed") == (3, 2 / 3, 0.5)


def test_without_such_a_clip_there_is_no_share():
    count, share, balanced = shares(
        [(parts_of(SAID.replace("moves left fast", "stands still")), parts_of(SAID))], "speed"
    )
    assert count == 0
    assert isnan(share)
    assert isnan(balanced)


def test_what_cannot_be_read_is_wrong():
    assert shares([(parts_of(SAID), parts_of("star star star"))], "shape") == (1, 0, 0)
