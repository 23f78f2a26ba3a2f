"""Texts as the published scores see them: normalised answers and BLEU.

The normalisation is that of the public VQA evaluation, with its number words, articles and contractions.
Sources: S. Antol et al., VQA: Visual Question Answering, ICCV 2015; K. Papineni et al., BLEU, ACL 2002, section 2.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The public evaluation hands a flag to re.sub where the number of replacements belongs; the flag's value is 32.
_FULL_STOPS_REMOVED = 32
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{name: str(value) for value, name in enumerate(_NUMBER_WORDS)}}

# A word that lacks exactly one of its apostrophes gets it back. Not here: what is another word without it (its, well).
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _spellings() -> dict[str, str]:
    spellings = {"somebody'd": "somebodyd"}  # the public table has this pair the wrong way round
    for word in _CONTRACTIONS.split():
        for position, character in enumerate(word):
            if character == "'":
                spellings[word[:position] + word[position + 1 :]] = word
    return spellings


_SPELLINGS = _spellings()


def normalize_word(text: str) -> str:
    """Normalises an answer as the published scripts do.

    A mark that stands at a space anywhere in the text is removed, as are all marks of a text that has a comma inside a
    number; other marks become spaces. Full stops go unless a digit follows, at most 32 of them. Number words become
    digits ("none" is 0), articles go, and contractions get a missing apostrophe back.

    Args:
        text: An answer; the published scripts put it in small letters first, as `legacy_words` does.

    Example:
        >>> normalize_word("the left, upper lobe (x-ray)"), normalize_word("none"), normalize_word("1,000 ml")
        ('left upper lobe x ray', '0', '1000 ml')
    """
    joined = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        at_a_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if joined or at_a_space else " ")
    cleaned = _FULL_STOP.sub("", cleaned, count=_FULL_STOPS_REMOVED)
    numbered = (_NUMBERS.get(word, word) for word in cleaned.lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in numbered if word not in _ARTICLES)


def legacy_words(text: str) -> list[str]:
    """Splits an answer into the words that the published scores count.

    Example:
        >>> legacy_words("It doesnt show the T2-weighted MRI.")
        ['it', "doesn't", 'show', 't2', 'weighted', 'mri']
    """
    return normalize_word(text.lower()).split()


def sentence_bleu(reference: Sequence[str], prediction: Sequence[str], weights: Sequence[float]) -> float:
    """BLEU of one sentence against one reference, without smoothing.

    A precision of 0 counts as the smallest normal float, so that scores such as 1e-231 come about; without a single
    shared word the score is 0.

    Args:
        reference: The words of the reference.
        prediction: The words of the prediction.
        weights: Of the precisions of 1-grams, 2-grams, and so on; at least one.

    Returns:
        The score, in [0, 1].

    Raises:
        ValueError: There are no weights.

    Example:
        >>> sentence_bleu("left upper lobe".split(), "left upper lobe opacity".split(), [0.5, 0.5])
        0.7071067811865475
    """
    if not weights:
        raise ValueError("sentence_bleu: weights must hold at least one number; got none. Use (1,) for BLEU-1.")
    logarithms = []
    for order, weight in enumerate(weights, start=1):
        said, expected = _ngrams(prediction, order), _ngrams(reference, order)
        shared = sum((said & expected).values())
        if order == 1 and not shared:
            return 0.0
        precision = shared / said.total() if shared else sys.float_info.min
        logarithms.append(weight * math.log(precision))
    brevity = min(1.0, math.exp(1 - len(reference) / len(prediction)))
    return brevity * math.exp(math.fsum(logarithms))


def _ngrams(text: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[start : start + order]) for start in range(len(text) - order + 1))
