"""Describe the machine and its user: host name, system, names."""

from __future__ import annotations

import getpass
import platform
import socket
import sys
from typing import Dict


def hostname() -> str:
    """Return the name of this machine without a domain, in lower case."""
    return short_hostname(socket.gethostname())


def short_hostname(name: str) -> str:
    """Return a host name without its domain or `.local`, in lower case."""
    return name.strip().rstrip(".").partition(".")[0].lower() or "unknown"


def user_name() -> str:
    """Return the name with which the user signs in, without a Windows domain."""
    try:
        return getpass.getuser().rpartition("\\")[2]
    except (KeyError, OSError):  # a user without an entry in the system's list
        return ""


def os_info() -> str:
    """Return name and version of the system, such as `Debian GNU/Linux 12 (bookworm)`."""
    if sys.platform == "darwin":
        return "macOS " + platform.mac_ver()[0]
    if sys.platform == "win32":
        return windows_name(platform.release(), platform.version())
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                name = parse_os_release(file.read()).get("PRETTY_NAME")
        except OSError:
            continue
        if name:
            return name
    return (platform.system() + " " + platform.release()).strip()


def windows_name(release: str, version: str) -> str:
    """Return Windows' name; Windows 11 calls itself 10 to older programs, from build 22000."""
    build = version.rpartition(".")[2]
    if release == "10" and build.isdigit() and int(build) >= 22000:
        release = "11"
    return f"Windows {release} ({version})"


def parse_os_release(text: str) -> Dict[str, str]:
    """Return the values of an os-release file."""
    values = {}
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign and not name.startswith("#"):
            values[name.strip()] = value.strip().strip("\"'")
    return values
