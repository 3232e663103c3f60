import pytest

from descore.chains.grounding import names_nothing, quoted_words, repeated_share, ungrounded
from descore.rubric import DEFAULT_RUBRIC
from descore.synthetic.splits import Split, plan_pair

LIMITS = {"most_repeated": 0.3, "longest_quote": 12}


@pytest.mark.parametrize(
    ("prompt", "chain"),
    [
        ("two dogs are running", "A dog runs over grass."),
        ("a woman dances", "She is dancing, the only woman here."),
        ("triangular shapes", "Three triangles."),
        ("一个红球在滚动", "画面里红球滚动得很慢"),
        ("一个红球", "A ball of red colour."),  # another script: it cannot be compared
        ("what is it", "Anything at all."),  # the prompt has no thing
    ],
)
def test_a_chain_that_names_a_thing_of_its_prompt(prompt, chain):
    assert not names_nothing(chain, prompt)


@pytest.mark.parametrize(
    ("prompt", "chain"),
    [
        ("a red ball on the table", "The video is good and the picture is of high quality."),
        ("一个红球", "画面清晰流畅"),
        ("a red ball", ""),
    ],
)
def test_a_chain_that_could_stand_behind_any_prompt(prompt, chain):
    assert names_nothing(chain, prompt)


def test_repetition_is_the_share_of_runs_that_were_there_before():
    assert repeated_share("one two three four five six") == 0
    # 8 words have 5 runs of four; the last is the first again.
    assert repeated_share("one two three four one two three four") == pytest.approx(1 / 5)
    assert repeated_share("too short") == 0


def test_a_quote_is_a_run_of_the_rubrics_words():
    rubric = "Judge with care whether the clip shows what was asked: {prompt} and give it a mark."
    quote = "I judge with care whether the clip shows what I like"
    assert quoted_words(quote, rubric) == len(["judge", "with", "care", "whether", "the", "clip", "shows", "what"])
    assert quoted_words("whether the clip shows what was wanted", rubric) == 0  # six words are a phrase
    assert quoted_words("a red ball that rolls over the old table", "{prompt} a red ball") == 0


def test_reasons_name_what_is_wrong():
    prompt, loop = "a red ball", "the red ball rolls on and " * 9
    assert ungrounded("Nice.", prompt=prompt, rubric="{prompt}", **LIMITS) == "names no thing of the prompt"
    assert "repeats itself: 88%" in ungrounded(loop, prompt=prompt, rubric="{prompt}", **LIMITS)
    copied = "ball: " + " ".join(DEFAULT_RUBRIC.split()[40:60])
    assert "quotes the rubric: 20 words" in ungrounded(copied, prompt=prompt, rubric=DEFAULT_RUBRIC, **LIMITS)


def test_true_chains_are_grounded_but_for_synonyms():
    reasons = []
    for number in range(100):
        plan = plan_pair(Split.TRAIN, number, loose=number % 2 == 1).a
        prose = plan.chain.partition("<answer>")[0]
        reasons.append(ungrounded(prose, prompt=plan.prompt, rubric=DEFAULT_RUBRIC, **LIMITS))
    others = [reason for reason in reasons if reason is not None]
    assert set(others) <= {"names no thing of the prompt"}  # 'discs going away': a circle that vanishes
    assert len(others) <= 3
