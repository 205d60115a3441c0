"""DevLake's encryption of secrets in its database, and the reason why a secret can't be read.

DevLake until May 2026 writes AES-256-CBC, later releases write AES-256-GCM and read both. So this
module reads both and writes CBC, which every release of DevLake reads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Any, Optional

# DevLake appends it to every value; its absence means a wrong secret.
END_OF_VALUE = b"{nddtf}"

BLOCK_BYTES = 16
NONCE_BYTES = 12
# An empty value in AES-GCM: nonce, end mark and tag.
LEAST_GCM_BYTES = NONCE_BYTES + len(END_OF_VALUE) + 16

OTHER_SECRET = "ENCRYPTION_SECRET is not DevLake's"
UNKNOWN_FORMAT = "it is in a format that this release does not know"
EARLIER_SECRET = f"{OTHER_SECRET} of when it was saved"
PERHAPS_FORMAT = f"{OTHER_SECRET}, or {UNKNOWN_FORMAT}"
PROBABLY_FORMAT = f"{UNKNOWN_FORMAT}, or {EARLIER_SECRET}"

COMPARE = "compare it with the ENCRYPTION_SECRET of DevLake's server"
UPDATE = "update developer-telemetry, and leave ENCRYPTION_SECRET as it is"
ROTATE = "give that connection a new token with `developer-telemetry token rotate`"
# The remedy for each reason; reasons that contain others are first.
REMEDIES = {
    PROBABLY_FORMAT: f"{UPDATE}; if this is the newest release, {ROTATE}",
    PERHAPS_FORMAT: f"{COMPARE}; if they are equal, {UPDATE}",
    EARLIER_SECRET: f"leave ENCRYPTION_SECRET as it is; {ROTATE}",
    OTHER_SECRET: "give it the ENCRYPTION_SECRET of DevLake's server",
    UNKNOWN_FORMAT: UPDATE,
}


class UnreadableSecret(ValueError):
    """A stored secret can't be decrypted."""


class OtherSecret(UnreadableSecret):
    """It was encrypted under another secret."""


class UnknownFormat(UnreadableSecret):
    """It was encrypted in a way that this release does not know.

    `certain` is False where it may as well be AES-GCM under another secret.
    """

    def __init__(self, message: str, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


def encrypt(value: str, encryption_secret: str) -> str:
    """Encrypt a value so that every release of DevLake reads it (AES-256-CBC, base64)."""
    from cryptography.hazmat.primitives.padding import PKCS7

    padder = PKCS7(8 * BLOCK_BYTES).padder()
    padded = padder.update(value.encode() + END_OF_VALUE) + padder.finalize()
    encryptor = _make_cbc_cipher(encryption_secret).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def decrypt(text: str, encryption_secret: str) -> str:
    """Decrypt what any release of DevLake, or `encrypt`, has written.

    :raises UnreadableSecret: one of its two kinds, judged by the text alone.
    """
    stored = _decode_base64(text)
    is_gcm = len(stored) >= LEAST_GCM_BYTES
    is_cbc = bool(stored) and len(stored) % BLOCK_BYTES == 0
    value = _decrypt_gcm(stored, encryption_secret) if is_gcm else None
    if value is None and is_cbc:
        value = _decrypt_cbc(stored, encryption_secret)
    if value is not None and value.endswith(END_OF_VALUE):
        return _decode_text(value[: -len(END_OF_VALUE)])
    if is_cbc:
        raise OtherSecret("the end mark is missing")
    raise UnknownFormat(f"its length is {len(stored)} bytes", certain=not is_gcm)


def is_cbc(text: str, encryption_secret: str) -> bool:
    """Return true if a stored secret can be read by releases of DevLake from before AES-GCM."""
    stored = _decode_base64(text)
    if not stored or len(stored) % BLOCK_BYTES:
        return False
    return (_decrypt_cbc(stored, encryption_secret) or b"").endswith(END_OF_VALUE)


class SecretReader:
    """Decrypts the secrets of one database, and names the reason where that fails.

    The other secrets decide between the reasons, so `decrypt_all` has to be called first.
    """

    def __init__(self, encryption_secret: str) -> None:
        self._secret = encryption_secret
        self._values: dict[str, str] = {}
        self._failures: dict[str, UnreadableSecret] = {}
        # Set where an API key was found under its HMAC: DevLake's secret of today is this one.
        self.is_proven = False

    def decrypt_all(self, texts: Iterable[Optional[str]]) -> None:
        """Decrypt these, so that `read` can compare each with the others."""
        for text in texts:
            if not text or text in self._values or text in self._failures:
                continue
            try:
                self._values[text] = decrypt(text, self._secret)
            except UnreadableSecret as error:
                self._failures[text] = error

    def read(self, text: Optional[str]) -> tuple[str, str]:
        """Return the value and `""`, or `""` and the reason why it can't be read."""
        if not text:
            return "", ""
        self.decrypt_all([text])
        if text in self._values:
            return self._values[text], ""
        return "", self._reason(self._failures[text])

    def _reason(self, error: UnreadableSecret) -> str:
        if isinstance(error, UnknownFormat):
            if error.certain or self.is_proven:
                return UNKNOWN_FORMAT
            return PROBABLY_FORMAT if self._values else PERHAPS_FORMAT
        return EARLIER_SECRET if self.is_proven or self._values else OTHER_SECRET


def remedy_of(message: str) -> str:
    """Return the remedy for the reason that a message names; `""` if it names none."""
    return next((REMEDIES[reason] for reason in REMEDIES if reason in message), "")


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnknownFormat("it is not base64", certain=True) from None


def _decode_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UnknownFormat("it is not UTF-8 text", certain=True) from None


def _decrypt_gcm(stored: bytes, encryption_secret: str) -> Optional[bytes]:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        cipher = AESGCM(_derive_key(encryption_secret))
        return cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], None)
    except InvalidTag:
        return None


def _decrypt_cbc(stored: bytes, encryption_secret: str) -> Optional[bytes]:
    from cryptography.hazmat.primitives.padding import PKCS7

    decryptor = _make_cbc_cipher(encryption_secret).decryptor()
    unpadder = PKCS7(8 * BLOCK_BYTES).unpadder()
    try:
        padded = decryptor.update(stored) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def _make_cbc_cipher(encryption_secret: str) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = _derive_key(encryption_secret)
    return Cipher(algorithms.AES(key), modes.CBC(key[:BLOCK_BYTES]))


def _derive_key(encryption_secret: str) -> bytes:
    return hashlib.sha256(encryption_secret.encode()).digest()
