"""The reasons of refusals: the words that they are counted by, and what users read."""

from __future__ import annotations

from typing import Optional

TOKEN = "token"
UNREADABLE = "secret"
# The reasons of senders that have shown no valid token.
WITHOUT_TOKEN = frozenset((TOKEN, UNREADABLE))

TITLES = {
    TOKEN: "token is missing or wrong",
    UNREADABLE: "the connection's token can't be read",
    "body": "body is not a JSON object",
    "developer": "developer is missing or too long",
    "developer_id": "developer is too long",
    "date": "date is not YYYY-MM-DD",
    "size": "report is too large",
    "encoding": "compression is not supported",
}


def describe_reason(reason: str, message: Optional[str] = None) -> str:
    """Return a reason in words, with the message of a refused report if there is one."""
    title = TITLES.get(reason, reason)
    return f"{title} ({message})" if message else title
