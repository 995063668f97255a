"""The key file: who calls, under which policy, band, locale and limits; keys are hashed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.answers import load_answers
from kidrails_guard.errors import KeysError, PolicyError
from kidrails_guard.files import write_atomic
from kidrails_guard.policy import Policy, describe_error, load_policy, read_yaml
from kidrails_guard.proxy.seams import MEBIBYTE
from kidrails_guard.types import AgeBand

_HINT = "run: kidrails keys list --file FILE"


class KeyLimits(BaseModel):
    """Bounds on one key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, gt=0)
    body_bytes: int = Field(default=MEBIBYTE, gt=0)


class KeyEntry(BaseModel):
    """One key as the file holds it: never the key itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE2b of the secret with the salt")
    band: AgeBand
    policy: str | None = Field(default=None, description="path; null: the service's policy")
    locale: str | None = None
    country: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    limits: KeyLimits = KeyLimits()
    created_on: date
    revoked_on: date | None = None


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[KeyEntry, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> KeyFile:
        for attribute in ("name", "id"):
            values = [getattr(k, attribute) for k in self.keys if k.revoked_on is None]
            twice = {v for v in values if values.count(v) > 1}
            if twice:
                raise ValueError(f"keys: {attribute} {sorted(twice)[0]!r} stands there twice")
        return self


def load_keys(path: Path) -> KeyFile:
    """Read a key file.

    Raises:
        KeysError: the file is absent or wrong; names the file, the key and what is accepted.
    """
    try:
        values = read_yaml(path)
        if values is not None and not isinstance(values, dict):
            raise KeysError(
                f"{path}: holds a {type(values).__name__}; accepted: a mapping `keys:` with a list "
                f"of keys, made by `kidrails keys add NAME`"
            )
        return KeyFile.model_validate(values or {})
    except PolicyError as error:
        if not path.exists():
            raise KeysError(f"{path}: no such key file; run: kidrails keys add NAME") from None
        raise KeysError(str(error)) from None
    except ValidationError as error:
        lines = [describe_error(detail, KeyFile) for detail in error.errors(include_url=False)]
        raise KeysError("\n".join(f"{path}: {line}" for line in lines) + f"\n{_HINT}") from None


def key_policy(path: Path, entry: KeyEntry, default: Policy) -> Policy:
    """Return the policy under which a key is served.

    Args:
        path: the key file; a key's own policy lies relative to it.
        entry: one of its keys.
        default: the policy of keys without one of their own.

    Raises:
        KeysError: it cannot be served; names the file, the key and what is accepted.
    """
    where = f"{path}: keys.{entry.name}"
    try:
        policy = default if entry.policy is None else load_policy(path.parent / entry.policy)
        changes = {"locale": entry.locale, "country": entry.country}
        policy = policy.model_copy(update={k: v for k, v in changes.items() if v is not None})
        load_answers(policy.locale)
    except PolicyError as error:
        raise KeysError(f"{where}: {error}") from None
    if entry.band not in policy.bands:
        raise KeysError(
            f"{where}.band: {entry.band} is not served by policy {policy.name!r}; accepted: "
            f"{', '.join(policy.bands)}"
        )
    return policy


def save_keys(path: Path, keys: KeyFile) -> None:
    """Write a key file, whole or not at all, readable by its owner only."""
    text = "# API keys of KidRails, hashed. Made by `kidrails keys`; a lost key cannot be shown.\n"
    text += yaml.safe_dump(keys.model_dump(mode="json", exclude_none=True), sort_keys=False)
    write_atomic(path, text)
    path.chmod(0o600)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold the key file for one change: of two that read it at once, one would lose the other's."""
    if not path.parent.is_dir():
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)  # no lock file that another user could not open
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def new_key(
    name: str,
    band: AgeBand,
    *,
    policy: str | None = None,
    locale: str | None = None,
    country: str | None = None,
    limits: KeyLimits = KeyLimits(),  # noqa: B008  # a frozen value
) -> tuple[str, KeyEntry]:
    """Return a new key, to be shown once, and its entry.

    Raises:
        KeysError: the name or country is not acceptable.
    """
    identifier, secret, salt = (
        secrets.token_hex(4),
        secrets.token_urlsafe(32),
        secrets.token_hex(16),
    )
    try:
        entry = KeyEntry(
            name=name,
            id=identifier,
            salt=salt,
            hash=hash_secret(secret, salt),
            band=band,
            policy=policy,
            locale=locale,
            country=country,
            limits=limits,
            created_on=datetime.now(UTC).date(),
        )
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise KeysError("; ".join(describe_error(d, KeyEntry) for d in details)) from None
    return f"kr_{identifier}_{secret}", entry


def hash_secret(secret: str, salt: str) -> str:
    """Return what stands in the file for a key's secret part."""
    # The secret has 256 random bits: a slow hash would only slow every request down.
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"), digest_size=32, salt=bytes.fromhex(salt)
    ).hexdigest()
