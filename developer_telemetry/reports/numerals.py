"""Numbers in the notations of different countries."""

from __future__ import annotations

import re
from typing import Optional, Union

# Longer texts are numbers only if they are plain digits.
MAX_CHARACTERS = 64

# Replaced by ASCII's signs: decimal points, group separators, minus.
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
    """Return the number in a text, None if there is none or it is ambiguous.

    `1.234` and `1,234` are 1234 in some countries and little more than 1 in others: 1234 where only
    whole numbers make sense (`is_whole`), the fraction elsewhere.
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
    # `inf` and `nan` are no numbers; a number of 400 digits is infinite and counts.
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
    """Return true if these are the groups of a number: of three digits, or as in India of two."""
    first, *middle, last = parts
    if len(last) != 3 or not 1 <= len(first) <= 3:
        return False
    lengths = {len(digits) for digits in middle}
    return lengths <= {3} or (lengths == {2} and len(first) <= 2)


def _fraction(integer: str, decimals: str) -> Optional[float]:
    return float(f"{integer}.{decimals}") if decimals else None
