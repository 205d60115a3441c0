"""Where the receiver listens, and the address at which it answers on this machine."""

from __future__ import annotations

import errno
import socket
import sys
from http.client import HTTPConnection, HTTPException
from typing import Any, Optional

from developer_telemetry.errors import ConfigurationError

# What the system keeps of answers that nobody reads, for each connection. Left alone it would keep
# up to 4 MiB; what a machine is told in a day is below 1 KiB.
UNSENT_BYTES = 128 << 10
IPV4 = "0.0.0.0"
BOTH = "::"
HEALTH_SECONDS = 4.0


def answering_host(host: str) -> str:
    """The host in a URL at which a receiver that listens on `host` answers on this machine."""
    if host in (IPV4, BOTH):
        return "127.0.0.1"
    # In a URL the name of an interface follows the address of one in its network that way.
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of `host`; `::` is all addresses of both families.

    Raises `ConfigurationError`.
    """
    hosts = (BOTH, IPV4) if host == BOTH else (host,)
    sockets: list[socket.socket] = []
    failure: Optional[OSError] = None
    for family, address in _addresses(hosts, port):
        try:
            sockets.append(_bound(family, address))
        except OSError as error:
            failure = error
            # There may be no IPv6, or a name may have addresses of others.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    if failure is not None and (not sockets or failure.errno == errno.EADDRINUSE):
        for each in sockets:
            each.close()
        raise _unusable(host, port, failure)
    return sockets


def _addresses(hosts: tuple[str, ...], port: int) -> list[tuple[int, Any]]:
    found: dict[tuple[int, Any], None] = {}
    for host in hosts:
        try:
            for family, *_, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                found[int(family), address] = None
        except (OSError, UnicodeError):
            raise ConfigurationError(
                f"TELEMETRY_HOST is {host!r}, which is no address and no name of this machine;"
                " set it to one, to 0.0.0.0 for all of IPv4, or to :: for all of both families"
            ) from None
    return list(found)


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _unusable(host: str, port: int, error: OSError) -> ConfigurationError:
    why, remedy = error.strerror, "set TELEMETRY_HOST to an address of this machine"
    if error.errno == errno.EADDRINUSE:
        remedy = "end what listens there, or set another TELEMETRY_PORT"
    elif error.errno in (errno.EACCES, errno.EPERM):
        remedy = "set TELEMETRY_PORT to one above 1023"
    return ConfigurationError(f"can't listen on {host} port {port} ({why}); {remedy}")


def is_alive(host: str, port: int) -> bool:
    """Whether a receiver that listens there answers."""
    # Not by urllib, which would ask a proxy that the environment names.
    name = answering_host(host).strip("[]").replace("%25", "%")
    connection = HTTPConnection(name, port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    """Exit with 0 if the receiver of these settings is alive, else with 1: an image's check."""
    from developer_telemetry.config import load

    settings = load(with_database=False)
    sys.exit(0 if is_alive(settings.host, settings.port) else 1)
