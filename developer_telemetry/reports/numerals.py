"""Numbers as people and programs write them in one country or another."""

from __future__ import annotations

import re
from typing import Optional, Union

# A longer one is a number of digits alone, or none.
MAX_CHARACTERS = 64

# To the few signs that are told apart below: of fractions, of groups, of what is less than nothing.
_SIGNS = str.maketrans(
    {
        "\u066b": ".",  # Arabic
        "\u066c": "'",
        "\uff0e": ".",  # of full width
        "\uff0c": ",",
        "\u2212": "-",
        "\u2019": "'",
        **dict.fromkeys("_\u00a0\u2007\u2009\u202f", " "),
    }
)
_NUMBER = re.compile(r"([+-]?)(\d[\d ',.]*)")


def read_number(text: str, is_whole: bool) -> Optional[Union[int, float]]:
    """Return the number that a text stands for, None if it is none or may be one of two.

    `1.234` and `1,234` are a thousand and more to some and little more than one to others: where
    only whole numbers make sense (`is_whole`) they are the former, elsewhere the latter.
    """
    text = text.strip()
    match = _NUMBER.fullmatch(text.translate(_SIGNS)) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return _plain(text)
    number = _unsigned(match[2], is_whole)
    return -number if number is not None and match[1] == "-" else number


def _plain(text: str) -> Optional[float]:
    try:
        number = float(text)
    except ValueError:
        return None
    # The words that stand for them are no numbers, but one of 400 digits is.
    return number if text[-1:].isdigit() and number == number else None


def _unsigned(text: str, is_whole: bool) -> Optional[Union[int, float]]:
    signs = re.findall(r"[ ',.]", text)
    parts = re.split(r"[ ',.]", text)
    if not signs:
        return int(text)
    *groups, last = signs
    if len(signs) == 1 and last in ".,":
        is_group = is_whole and _are_groups(parts) and not parts[0].startswith("0")
        return int("".join(parts)) if is_group else _fraction(parts[0], parts[1])
    if set(signs) == {last}:
        return int("".join(parts)) if _are_groups(parts) else None
    if len(set(groups)) == 1 and last in ".," and last not in groups and _are_groups(parts[:-1]):
        return _fraction("".join(parts[:-1]), parts[-1])
    return None


def _are_groups(parts: list[str]) -> bool:
    """Return whether these are the groups of a number: of three digits, or as in India of two."""
    first, *middle, last = parts
    if len(last) != 3 or not 1 <= len(first) <= 3:
        return False
    lengths = {len(digits) for digits in middle}
    return lengths <= {3} or (lengths == {2} and len(first) <= 2)


def _fraction(integer: str, decimals: str) -> Optional[float]:
    return float(f"{integer}.{decimals}") if decimals else None
