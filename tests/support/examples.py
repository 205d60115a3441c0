"""The number of examples of a property."""

from __future__ import annotations

import os

from hypothesis import settings

# `make test-quick` sets TEST_QUICK.
_DIVISOR = 10 if os.environ.get("TEST_QUICK") == "1" else 1


def examples(count: int) -> settings:
    """Return Hypothesis's settings for `count` examples, or a tenth of them in a quick run."""
    return settings(max_examples=max(1, count // _DIVISOR))
