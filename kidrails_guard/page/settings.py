"""What the grown-up set: the PIN (hashed), the age band, whom the child can tell."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from kidrails_guard.errors import UsageError
from kidrails_guard.files import write_atomic
from kidrails_guard.policy import Policy, describe_error
from kidrails_guard.types import AgeBand

FILE: Final = "page.json"
PIN_LENGTH: Final = (4, 12)
_TOO_EASY: Final = frozenset({"1234", "12345", "123456", "4321", "0123", "2580", "1212"})

_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 1}
_FREE_TRIES: Final = 3
_FIRST_WAIT_S: Final = 5.0
_LONGEST_WAIT_S: Final = 900.0

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


class SettingsError(UsageError):
    """The settings file is not readable or not writable, or a setting is not acceptable."""


class NotAcceptable(SettingsError):
    """A setting is not acceptable."""


class PageSettings(BaseModel):
    """What is kept in ``page.json``; frozen, so that a change is one write.

    Attributes:
        pin: scrypt hash of the PIN with its salt.
        band: the age band of the child's page.
        people: whom the child can tell, as the child calls them.
        seen_until: inbox entries up to this time (UTC, ISO 8601) have been looked at.
        failures: wrong PINs in a row.
        locked_until: no PIN is accepted before this time (seconds since the epoch).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pin: str = Field(pattern=r"^scrypt\$[0-9a-f]{32}\$[0-9a-f]{64}$")
    band: AgeBand
    people: tuple[Name, ...] = Field(default=(), max_length=6)
    seen_until: str = ""
    failures: int = Field(default=0, ge=0)
    locked_until: float = 0.0


@dataclass(frozen=True, slots=True)
class PinAnswer:
    """Whether a PIN was right, and how long to wait before the next try.

    Attributes:
        right: it was, and the page may open.
        wait_s: whole seconds until the next try is accepted; 0 for at once.
    """

    right: bool
    wait_s: int = 0


class SettingsStore:
    """Reads and writes the settings of one page.

    Args:
        folder: holds ``page.json``; made when something is saved.
        clock: seconds since the epoch (for tests).
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = folder / FILE
        self._clock = clock
        self._lock = threading.Lock()
        #: Wrong PINs that the file could not take: on a full disk, or where it may only be read.
        self._unsaved: dict[str, Any] = {}

    def read(self) -> PageSettings | None:
        """Return the settings, or None before the grown-up has set a PIN.

        Raises:
            SettingsError: the file is there and does not hold settings.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.path}: cannot be read ({type(error).__name__})") from None
        try:
            return PageSettings.model_validate_json(text)
        except ValidationError as error:
            detail = describe_error(error.errors(include_url=False)[0], PageSettings)
            raise SettingsError(
                f"{self.path}: {detail}; to begin anew with a new PIN run: kidrails demo "
                "--forget-pin"
            ) from None

    def band(self, policy: Policy) -> AgeBand:
        """Return the age band that is set, or the youngest where the policy does not serve it.

        Raises:
            SettingsError: as `read`.
        """
        settings = self.read()
        band = settings.band if settings else policy.fallback_band
        return band if band in policy.bands else policy.youngest

    def set_up(self, pin: str, *, band: AgeBand) -> PageSettings:
        """Store the first PIN and the age band.

        Raises:
            SettingsError: a PIN is set already, or this one is not acceptable.
        """
        with self._lock:
            if self.read() is not None:
                raise SettingsError("a PIN is set already; change it under Settings")
            check_pin(pin)
            return self._write(PageSettings(pin=hash_pin(pin), band=band))

    def change(self, **values: Any) -> PageSettings:
        """Store changed settings, such as ``band``.

        Raises:
            SettingsError: a value is not acceptable, or nothing has been set up yet.
        """
        with self._lock:
            return self._change(**values)

    def change_pin(self, pin: str) -> PageSettings:
        """Store a new PIN.

        Raises:
            SettingsError: it is not acceptable.
        """
        check_pin(pin)
        return self.change(pin=hash_pin(pin))

    def forget(self) -> bool:
        """Delete the settings; return whether there were any."""
        existed = self.path.exists()
        self.path.unlink(missing_ok=True)
        return existed

    def try_pin(self, pin: str) -> PinAnswer:
        """Compare a PIN; after three wrong ones each further one makes the next wait longer.

        The waiting time holds for everyone and is stored: neither another browser nor a restart
        shortens it. Where it cannot be stored, it holds for as long as this program runs.
        """
        with self._lock:
            settings = self.read()
            if settings is None:
                return PinAnswer(False)
            settings = settings.model_copy(update=self._unsaved)
            left = settings.locked_until - self._clock()
            if left > 0:
                # A clock that was set back must not lock the page for years.
                return PinAnswer(False, math.ceil(min(left, _LONGEST_WAIT_S)))
            if same_pin(pin, settings.pin):
                if settings.failures:
                    self._count(failures=0, locked_until=0.0)
                return PinAnswer(True)
            failures = settings.failures + 1
            wait = waiting_time(failures)
            self._count(failures=failures, locked_until=self._clock() + wait if wait else 0.0)
            return PinAnswer(False, math.ceil(wait))

    def _count(self, **values: Any) -> None:
        self._unsaved = values
        with contextlib.suppress(SettingsError):
            self._change()

    def _change(self, **values: Any) -> PageSettings:
        settings = self.read()
        if settings is None:
            raise SettingsError("nothing is set up yet; open the page and choose a PIN first")
        try:
            values = {**settings.model_dump(), **self._unsaved, **values}
            return self._write(PageSettings.model_validate(values))
        except ValidationError as error:
            detail = describe_error(error.errors(include_url=False)[0], PageSettings)
            raise NotAcceptable(detail) from None

    def _write(self, settings: PageSettings) -> PageSettings:
        try:
            # Never for others, not for a moment: a PIN of four digits is soon found from its hash.
            write_atomic(self.path, settings.model_dump_json(indent=2) + "\n", mode=0o600)
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be written ({error.strerror}); set KIDRAILS_CONFIG to a "
                "folder that can be"
            ) from None
        self._unsaved = {}
        return settings


def waiting_time(failures: int) -> float:
    """Return the seconds to wait after so many wrong PINs in a row.

    >>> [waiting_time(n) for n in (1, 2, 3, 4, 5, 30)]
    [0.0, 0.0, 5.0, 10.0, 20.0, 900.0]
    """
    if failures < _FREE_TRIES:
        return 0.0
    return float(min(_FIRST_WAIT_S * 2.0 ** min(failures - _FREE_TRIES, 60), _LONGEST_WAIT_S))


def check_pin(pin: str) -> None:
    """Accept a PIN or say why not.

    Raises:
        SettingsError: it is no row of 4 to 12 digits, or one that a child tries first.
    """
    least, most = PIN_LENGTH
    if not (pin.isascii() and pin.isdigit() and least <= len(pin) <= most):
        raise SettingsError(f"The PIN needs {least} to {most} digits and nothing else.")
    if len(set(pin)) == 1 or pin in _TOO_EASY:
        raise SettingsError("That PIN is one that a child tries first; please choose another.")


def hash_pin(pin: str) -> str:
    """Return a salted scrypt hash of a PIN.

    Source: RFC 7914; parameters as recommended there for interactive logins.
    """
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(pin.encode("utf-8", "surrogatepass"), salt=salt, dklen=32, **_SCRYPT)
    return f"scrypt${salt.hex()}${digest.hex()}"


def same_pin(pin: str, stored: str) -> bool:
    """Return whether a PIN is the one that was hashed, in a time that tells nothing."""
    _, salt, digest = stored.split("$")
    found = hashlib.scrypt(
        pin.encode("utf-8", "surrogatepass"), salt=bytes.fromhex(salt), dklen=32, **_SCRYPT
    )
    return hmac.compare_digest(found.hex(), digest)
