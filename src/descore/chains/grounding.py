"""Whether a chain is about its prompt: plain tests of its words, without a model.

In: a chain without its answer, its prompt, and the rubric. Out: why it is not grounded, or None.

    names nothing     no word of the prompt that carries meaning is in the chain
    repeats itself    more than a share of its runs of four words were there before
    quotes            a run of words is the rubric's own

Languages without spaces are compared by pairs of letters. A chain in another script than its prompt cannot be compared
with it word by word, and passes the first test."""

import re
from collections.abc import Iterator, Sequence

from descore.rubric import PLACEHOLDER

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
"""Thai, Lao, Khmer, Japanese and Chinese, which put no space between words."""
_RUN = 4
"""Words of a run, of which repetition is counted in."""
_ENDINGS = ("ing", "ed", "es", "s")
_LEAST_STEM = 3
_PREFIX = 6
"""Letters by which longer words are compared."""
_FUNCTION_WORDS = frozenset(
    """
    a an and are as at be been being but by can for from had has have he her his how i in into is it its of off
    on one onto or our out over shall she so some that the their them then there these they this those through
    to under up upon was we were what when where which while who will with within without you your
    """.split()  # noqa: SIM905  # easier to read
)
"""English words without which a sentence has none of its things."""


def ungrounded(chain: str, *, prompt: str, rubric: str, most_repeated: float, longest_quote: int) -> str | None:
    """Why a chain is not grounded in its prompt, in words; None if it is.

    chain: without its answer. most_repeated: share of its runs of words that may repeat earlier ones, from 0 to 1.
    longest_quote: words of the rubric that it may have in a row."""
    if names_nothing(chain, prompt):
        return "names no thing of the prompt"
    repeated = repeated_share(chain)
    if repeated > most_repeated:
        return f"repeats itself: {repeated:.0%} of its runs of {_RUN} words were there before"
    quote = quoted_words(chain, rubric)
    if quote > longest_quote:
        return f"quotes the rubric: {quote} words in a row or more"
    return None


def names_nothing(chain: str, prompt: str) -> bool:
    """Whether none of the prompt's words is in the chain. A prompt without any such word, or a chain in another script,
    gives False."""
    asked, written = set(_stems(prompt)), set(_stems(chain))
    if not asked or not {_is_unspaced(word) for word in asked} & {_is_unspaced(word) for word in written}:
        return not written and bool(asked)
    return not asked & written


def repeated_share(chain: str) -> float:
    """The share of runs of four words that were in the chain before; 0 for fewer words."""
    runs = list(_runs(words_of(chain), _RUN))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def quoted_words(chain: str, rubric: str) -> int:
    """The longest run of words that chain and rubric share, where it is longer than a phrase of six; else 0. The prompt
    in the rubric is not part of it."""
    written, longest = words_of(chain), 0
    parts = [words_of(part) for part in rubric.split(PLACEHOLDER)]
    for length in range(7, len(written) + 1):
        known = {run for part in parts for run in _runs(part, length)}
        if not any(run in known for run in _runs(written, length)):
            break
        longest = length
    return longest


def content_words(text: str) -> list[str]:
    """The words of a text in lower case, without those that carry no meaning of their own."""
    return [word for word in words_of(text) if word not in _FUNCTION_WORDS]


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; of languages without spaces, its pairs of letters."""
    return [part for word in _WORD.findall(text.casefold()) for part in _parts(word)]


def _parts(word: str) -> Iterator[str]:
    """A word; a text without spaces as its pairs of letters."""
    for piece in re.split(f"({_UNSPACED.pattern})", word):
        if _is_unspaced(piece) and len(piece) > 1:
            yield from (piece[index : index + 2] for index in range(len(piece) - 1))
        elif piece:
            yield piece


def _is_unspaced(word: str) -> bool:
    return _UNSPACED.match(word) is not None


def _stems(text: str) -> Iterator[str]:
    for word in content_words(text):
        ending = next((end for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= _LEAST_STEM), "")
        stem = word.removesuffix(ending)
        # 'running' and 'runs', 'dance' and 'dancing' have one stem.
        doubled = len(stem) > _LEAST_STEM and stem[-1] == stem[-2] and ending in ("ing", "ed")
        stem = stem[:-1] if doubled else stem.removesuffix("e") if len(stem) > _LEAST_STEM else stem
        yield stem[:_PREFIX]  # 'triangular' and 'triangles'


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[index : index + length]) for index in range(len(words) - length + 1))
