"""Which extended answers are good enough: each check is a cheap rule that errs on the side of rejecting."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from exgra_adapter.captions.requests import SHORT_LIMIT, count_words, word_limit
from exgra_adapter.captions.words import NEGATIONS, NUMBER_WORDS, REFUSAL, STOP_WORDS, TERM, TERMS, VERDICTS
from exgra_adapter.data.records import shows_nothing

CHECKS: dict[str, str] = {
    "empty": "no text",
    "refusal": "refuses, advises, or speaks about itself or its task",
    "language": "another script or language than question and answer",
    "too_short": "shorter than the shortest permitted share of the answer",
    "too_long": "longer than the word limit with its tolerance",
    "verdict": "yes or no at the start is gone or turned around",
    "negation": "a finding became its absence, or the other way round",
    "numbers": "a number of the answer is missing",
    "terms": "too many medical terms of the answer are missing, or words of a short one or of one without terms",
}
"""The checks in their order, with what a rejected text has done; the first that fails is counted."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PRONOUN = re.compile(r"\bone (?=can|may|could|sees|would|should)", re.IGNORECASE)
_SCRIPT_SHARE = 0.15
_SHORT_WORDS = 3


@dataclass(frozen=True)
class Limits:
    """How strict the checks are.

    Attributes:
        longest: Longest text, as a multiple of the word limit that the model was told.
        shortest: Shortest text, as a multiple of the answer's words.
        kept_terms: Smallest share of the answer's medical terms that must be kept.
    """

    longest: float = 1.25
    shortest: float = 0.75
    kept_terms: float = 0.75

    def __post_init__(self) -> None:
        if not self.longest >= 1 or not 0 <= self.shortest <= 1 or not 0 <= self.kept_terms <= 1:
            raise ValueError(
                "Limits: longest must be at least 1, shortest and kept_terms between 0 and 1; got "
                f"{self.longest}, {self.shortest} and {self.kept_terms}. Correct them."
            )


def one_line(text: str) -> str:
    r"""Puts a text on one line without quotation marks around it, which models often add.

    Example:
        >>> one_line('"A lesion\\nin the liver."')
        'A lesion in the liver.'
    """
    line = " ".join(text.replace("\\n", " ").split())
    for opening, closing in ('""', "''", "“”", "``"):
        if len(line) >= 2 and line[0] == opening and line[-1] == closing and opening not in line[1:-1]:
            return line[1:-1].strip()
    return line


def rejection(question: str, answer: str, text: str, limits: Limits | None = None) -> str | None:
    """The first check that an extended answer fails.

    Args:
        question: The question.
        answer: The reference answer.
        text: The extended answer, on one line.
        limits: How strict the checks are.

    Returns:
        A key of `CHECKS`, or None for a good text.

    Example:
        >>> rejection("Which side?", "left lung", "The finding lies in the left lung.") is None
        True
        >>> rejection("Which side?", "left lung", "The finding lies in the right lung.")
        'terms'
        >>> rejection("Is there a mass?", "No", "Yes, there is a mass.")
        'verdict'
    """
    limits = limits or Limits()
    if shows_nothing(text):
        return "empty"
    words, answer_words = count_words(text), count_words(answer)
    if REFUSAL.search(text) and not REFUSAL.search(answer):
        return "refusal"
    if _is_foreign(f"{question} {answer}", text):
        return "language"
    if words < limits.shortest * answer_words:
        return "too_short"
    # A sentence of a few words is no burden, even where the answer has three and the limit is six.
    if words > max(SHORT_LIMIT, limits.longest * word_limit(answer)):
        return "too_long"
    verdict = _verdict(answer)
    if verdict is not None and _first_word(text) != verdict:
        return "verdict"
    if verdict is None and _is_negated(answer) != _is_negated(text):
        return "negation"
    # "one" is an article as often as a number, so it may stand for 1 but is not asked for.
    if not numbers(re.sub(r"(?i)\bone\b", "", answer)) <= numbers(text):
        return "numbers"
    terms = medical_terms(answer)
    if not terms or answer_words <= _SHORT_WORDS:
        terms |= _content_words(answer)
    if terms and len(terms & _stems(text)) < _least_kept(len(terms), limits.kept_terms):
        return "terms"
    return None


def medical_terms(text: str) -> set[str]:
    """The stems of a text's medical terms: anatomy, sides, classical roots, and abbreviations in capitals.

    Example:
        >>> sorted(medical_terms("CT shows a large left pneumothorax"))
        ['ct', 'left', 'pneumothorax']
    """
    found = set()
    shouted = text.isupper() and len(text.split()) > 2
    for word in _WORD.findall(text):
        lowered = word.lower()
        abbreviation = word.isupper() and len(word) >= 2 and not shouted
        if abbreviation or lowered in TERMS or (len(lowered) >= 5 and TERM.search(lowered)):
            found.add(_stem(lowered))
    return found


def numbers(text: str) -> set[str]:
    """The numbers of a text, those in words from zero to twelve included.

    Example:
        >>> sorted(numbers("two lesions of 1,5 cm on T2"))
        ['1.5', '2']
    """
    words = map(str.lower, _WORD.findall(_PRONOUN.sub("", text)))
    return {number.replace(",", ".") for number in _NUMBER.findall(text)} | {
        NUMBER_WORDS[word] for word in words if word in NUMBER_WORDS
    }


def length_ratio(answer: str, text: str) -> float:
    """Words of the extended answer for each word of the answer."""
    return count_words(text) / max(1, count_words(answer))


def _content_words(answer: str) -> set[str]:
    """Stands in for medical terms: the words that are no function words."""
    words = (word.lower() for word in _WORD.findall(answer))
    functional = STOP_WORDS["en"] | NEGATIONS | {*VERDICTS, *NUMBER_WORDS}
    return {_stem(word) for word in words if len(word) > 2 and word not in functional}


def _least_kept(count: int, share: float) -> float:
    # Of one or two terms, each is the answer.
    return count if count <= 2 and share > 0 else share * count


def _first_word(text: str) -> str:
    first = _WORD.search(text)
    return first[0].lower() if first else ""


def _verdict(answer: str) -> str | None:
    word = _first_word(answer)
    if word not in VERDICTS:
        return None
    # "No acute fracture" is a finding; "No" and "No, ..." are verdicts.
    rest = answer.lower().partition(word)[2].lstrip()
    return word if word == "yes" or not rest or rest[0] in ",.;:!-–—" else None


def _is_negated(text: str) -> bool:
    words = {word.lower() for word in _WORD.findall(text)}
    return bool(words & NEGATIONS) or any(word.endswith(("n't", "n’t")) for word in words)


def _stems(text: str) -> set[str]:
    return {_stem(word.lower()) for word in _WORD.findall(text)} | {
        _stem(part) for word in _WORD.findall(text) for part in re.split(r"[-'’]", word.lower()) if part
    }


def _stem(word: str) -> str:
    """Singular and plural are one term."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith(("ss", "is", "us")) else word


def _is_foreign(source: str, text: str) -> bool:
    known = _scripts(source)
    scripts = _scripts(text)
    letters = sum(scripts.values())
    if (
        letters
        and sum(known.values())
        and sum(count for script, count in scripts.items() if script not in known) > _SCRIPT_SHARE * letters
    ):
        return True
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < 6:
        return False
    counts = {language: sum(word in stops for word in words) for language, stops in STOP_WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    source_words = [word.lower() for word in _WORD.findall(source)]
    support = {language: sum(word in stops for word in source_words) for language, stops in STOP_WORDS.items()}
    expected = max(support, key=lambda language: support[language])
    # Only a clear majority counts: medical Latin and borrowed words occur in every language.
    return support[expected] > 0 and best != expected and counts[best] >= 2 and counts[best] > 2 * counts[expected]


def _scripts(text: str) -> Counter[str]:
    """Letters by script, the first word of their Unicode names; Japanese and Chinese share theirs."""
    if text.isascii():
        return Counter({"LATIN": sum(map(len, _WORD.findall(text)))})
    counts: Counter[str] = Counter()
    for letter in text:
        if letter.isalpha():
            script = "LATIN" if letter.isascii() else unicodedata.name(letter, "OTHER").split()[0]
            # Greek letters are symbols in Latin texts.
            if script not in ("GREEK", "MICRO", "MODIFIER"):
                counts["CJK" if script in ("HIRAGANA", "KATAKANA") else script] += 1
    return counts
