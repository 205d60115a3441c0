"""DevLake's two encryptions of secrets, independent of ours: until May and from June 2026 on."""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

END = b"{nddtf}"


def encrypt_as_june(value: str, secret: str) -> str:
    """Encrypt as a release with AES-GCM."""
    nonce = os.urandom(12)
    key = hashlib.sha256(secret.encode()).digest()
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, value.encode() + END, None)).decode()


def read_as_may(text: str, secret: str) -> str:
    """Decrypt as a release without AES-GCM.

    :raises ValueError: it can't, and then lists no connections at all.
    """
    key = hashlib.sha256(secret.encode()).digest()
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    padded = decryptor.update(base64.b64decode(text)) + decryptor.finalize()
    value = padded[: -padded[-1]]
    if not value.endswith(END):
        raise ValueError("invalid encryptionSecret")
    return value[: -len(END)].decode()
