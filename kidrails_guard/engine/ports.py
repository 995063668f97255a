"""Whether a port is free, and which one is next."""

from __future__ import annotations

import errno
import socket
from typing import Final

from kidrails_guard.errors import EngineError

_TRIES: Final = 200
_NOT_OURS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def port_is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on this address and port now.

    Raises:
        EngineError: the address is not one of this machine's, or the port needs privileges.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError, UnicodeError) as error:
        raise EngineError(f"the address {host}:{port} does not exist: {error}") from None
    with socket.socket(family, kind, protocol) as probe:
        # As servers do it: a port whose last connections are just closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError:
            raise EngineError(f"port {port} needs privileges; choose one above 1023") from None
        except OSError as error:
            if error.errno in _NOT_OURS:
                raise EngineError(
                    f"the address {host!r} is not one of this machine's; use 127.0.0.1"
                ) from None
            return False
    return True


def next_free_port(host: str, port: int) -> int | None:
    """Return the first free port above this one, or None."""
    for candidate in range(port + 1, min(port + 1 + _TRIES, 65536)):
        if port_is_free(host, candidate):
            return candidate
    return None


def require_free_port(host: str, port: int, *, option: str = "--port") -> None:
    """Check that a port is free.

    Args:
        host: the address to listen on.
        port: the port.
        option: the command-line option that chooses another, for the message.

    Raises:
        EngineError: it is in use; the message names the next free one.
    """
    if port_is_free(host, port):
        return
    following = next_free_port(host, port)
    hint = f"; the next free one: {option} {following}" if following else ""
    raise EngineError(f"port {port} on {host} is in use by another program{hint}")
