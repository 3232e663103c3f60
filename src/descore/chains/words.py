"""What the words of a chain alone give away: a logistic regression on word counts, judged by cross-validation.

In: texts, whether each belongs to the class, and groups that stay together. Out: for each text whether a model that
never saw its group puts it into the right class, and the words that tell most.

Shapes: N texts, V words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from descore.chains.grounding import words_of

_FOLDS = 5
_LEAST_TEXTS = 3
"""Texts that a word is in, at least, to be a feature."""
_MOST_WORDS = 2000
_PENALTY = 1.0
"""Weight of half the squared norm of the weights, beside the sum of losses."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordsAlone:
    """What cross-validation gave."""

    right_N: NDArray[np.float64]
    """1 if the class of a text is predicted, else 0; nan for a text that no other group can tell of."""
    telling: tuple[str, ...]
    """The words of the class, and those of the other, that a model of all texts weighs most."""


def judge_by_words(texts: Sequence[str], class_N: NDArray[np.bool_], group_N: NDArray[np.str_]) -> WordsAlone:
    """Predict the class of each text by its words, from texts of other groups."""
    counts = [Counter(words_of(text)) for text in texts]
    right_N = np.full(len(texts), np.nan)
    for held_out_N in _folds(group_N):
        train, test = np.flatnonzero(~held_out_N), np.flatnonzero(held_out_N)
        if len(np.unique(class_N[train])) < 2:
            continue
        known = _vocabulary([counts[index] for index in train])
        weight_V, bias = fit_logistic(_matrix([counts[index] for index in train], known), class_N[train])
        score = _matrix([counts[index] for index in test], known) @ weight_V + bias
        right_N[test] = (score > 0) == class_N[test]
    return WordsAlone(right_N=right_N, telling=_telling(counts, class_N))


def judge_by_features(
    feature_NF: NDArray[np.float64], class_N: NDArray[np.bool_], group_N: NDArray[np.str_]
) -> NDArray[np.float64]:
    """The same by given features: 1 if the class is predicted, else 0 (N)."""
    right_N = np.full(len(class_N), np.nan)
    for held_out_N in _folds(group_N):
        if len(np.unique(class_N[~held_out_N])) == 2:
            weight_F, bias = fit_logistic(csr_matrix(feature_NF[~held_out_N]), class_N[~held_out_N])
            right_N[held_out_N] = (feature_NF[held_out_N] @ weight_F + bias > 0) == class_N[held_out_N]
    return right_N


def fit_logistic(feature_NV: Any, class_N: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:  # noqa: ANN401
    """Weights (V) and bias of a logistic regression with an L2 penalty on the weights; features are sparse."""
    sign_N = np.where(class_N, 1.0, -1.0)

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight_V, bias = point[:-1], point[-1]
        margin_N = sign_N * (feature_NV @ weight_V + bias)
        slope_N = -sign_N * expit(-margin_N)
        value = np.logaddexp(0, -margin_N).sum() + _PENALTY / 2 * weight_V @ weight_V
        return float(value), np.append(feature_NV.T @ slope_N + _PENALTY * weight_V, slope_N.sum())

    found = minimize(loss, np.zeros(feature_NV.shape[1] + 1), jac=True, method="L-BFGS-B")
    return found.x[:-1], float(found.x[-1])


def _folds(group_N: NDArray[np.str_]) -> list[NDArray[np.bool_]]:
    """Masks of the texts that are held out; a group is in one of them."""
    names, index_N = np.unique(group_N, return_inverse=True)
    fold_G = np.random.default_rng(0).permutation(len(names)) % _FOLDS
    return [fold_G[index_N] == fold for fold in range(min(_FOLDS, len(names)))]


def _vocabulary(counts: Sequence[Counter[str]]) -> dict[str, int]:
    texts = Counter(word for count in counts for word in count)
    known = [word for word, number in texts.most_common(_MOST_WORDS) if number >= _LEAST_TEXTS]
    return {word: index for index, word in enumerate(known)}


def _matrix(counts: Sequence[Counter[str]], known: dict[str, int]) -> Any:  # noqa: ANN401  # scipy is not typed
    """log(1 + count) of each word in each text (N, V)."""
    places = [(row, known[w], np.log1p(n)) for row, count in enumerate(counts) for w, n in count.items() if w in known]
    rows, columns, values = zip(*places, strict=True) if places else ((), (), ())
    return csr_matrix((values, (rows, columns)), shape=(len(counts), len(known)), dtype=np.float64)


def _telling(counts: Sequence[Counter[str]], class_N: NDArray[np.bool_], *, most: int = 5) -> tuple[str, ...]:
    known = _vocabulary(counts)
    if len(np.unique(class_N)) < 2 or not known:
        return ()
    weight_V, _ = fit_logistic(_matrix(counts, known), class_N)
    words = np.array(list(known))[np.argsort(weight_V)]
    return tuple(dict.fromkeys(map(str, (*words[::-1][:most], *words[:most]))))
