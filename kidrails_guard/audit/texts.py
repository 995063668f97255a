"""Texts that the operator chose to keep: encrypted, in files of their own, forgotten sooner."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


def text_cipher(key: bytes) -> Fernet:
    """Return what encrypts and decrypts the texts of a folder, by a key of its own."""
    from cryptography.fernet import Fernet

    return Fernet(urlsafe_b64encode(hmac.digest(key, b"encrypt", "sha256")))
