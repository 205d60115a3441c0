"""What the plugin's tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a failure is never a matter of luck.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")
