"""Keyed hashes in place of the names of people and hosts.

Only with `ENCRYPTION_SECRET` can a pseudonym be matched to a name, by hashing that name. Under
another secret every person gets another pseudonym.
"""

from __future__ import annotations

import hashlib
import hmac
import re

DEVELOPER = "dev"
EMAIL = "mail"
HOST = "host"
NAME = "name"
ACCOUNT = "user"  # of a machine: a login, the owner of a home directory

# 64 bits of a hash, and 16 that can't be computed without the secret.
SHAPE = re.compile(f"(?:{DEVELOPER}|{EMAIL}|{HOST}|{NAME}|{ACCOUNT})-[0-9a-f]{{20}}")
_HASHED = 16
_CHECKED = 4


class Pseudonyms:
    """The pseudonyms of one connection; each connection has different ones."""

    def __init__(self, encryption_secret: str, connection_id: int) -> None:
        purpose = f"developer_telemetry pseudonyms {connection_id}"
        secret = encryption_secret.strip().encode()
        self._key = hmac.new(secret, purpose.encode(), hashlib.sha256).digest()

    def pseudonymize(self, kind: str, text: str) -> str:
        """Return the pseudonym of a text of a kind; a pseudonym of ours stays as it is."""
        if self.is_pseudonym(text):
            return text
        text = text.lower() if kind == EMAIL else text
        return self._append_check(f"{kind}-{self._hash(kind, text)[:_HASHED]}")

    def is_pseudonym(self, text: str) -> bool:
        """Return true if a text is a pseudonym made with this key."""
        return bool(SHAPE.fullmatch(text)) and self._append_check(text[:-_CHECKED]) == text

    def _append_check(self, text: str) -> str:
        return text + self._hash("check", text)[:_CHECKED]

    def _hash(self, purpose: str, text: str) -> str:
        # BLAKE2 has a key of its own, and takes a third of the time of an HMAC.
        return hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"),
            key=self._key,
            person=purpose.encode(),
            digest_size=8,
        ).hexdigest()
