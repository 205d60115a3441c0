"""Texts that install the collector on a machine: lines to paste, and scripts for fleet tools.

None has the token: a person types it, a tool gives it in TELEMETRY_TOKEN, and the collector
reads it from its standard input. A token in a command line could be seen in the list of processes.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from developer_telemetry.connections.report_url import COLLECTOR_PATH
from developer_telemetry.errors import ConfigurationError

SHELL_SCRIPT = """\
#!/bin/sh
# Installs the developer telemetry collector for one user. {who}
{token_comment}set -eu
{token_check}folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
curl -fsSL -o "$folder/collector.pyz" {collector}
{before}{give}{runner}python3 "$folder/collector.pyz" install {token_option}--url {url}
"""
# systemctl --user and the temporary folder need what a sign-on sets.
LINUX = (
    "Run it as that user, not as root.",
    'export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"\n',
    "",
)
MACOS = (
    "As root it takes the user who is signed in.",
    """\
as_user=
if [ "$(id -u)" = 0 ]; then
    user=$(stat -f %Su /dev/console)
    as_user="launchctl asuser $(id -u "$user") sudo -H -u $user"
fi
cd /
""",
    "$as_user ",
)
POWERSHELL_SCRIPT = """\
# Installs the developer telemetry collector. Run it with the rights of the user who is signed in.
{token_comment}$ErrorActionPreference = 'Stop'
$file = Join-Path $env:TEMP 'developer-telemetry-collector.pyz'
Invoke-WebRequest -UseBasicParsing -Uri {collector} -OutFile $file
{give}py -3 $file install {token_option}--url {url}
$status = $LASTEXITCODE
Remove-Item $file
exit $status
"""
TOKEN_COMMENT = (
    "# Set TELEMETRY_TOKEN to the connection's token, from your tool's store of secrets.\n"
)
TOKEN_CHECK = ': "${TELEMETRY_TOKEN:?is not set}"\n'
SYSTEMS = ("linux", "macos", "windows")


class InstallLines(NamedTuple):
    """The line for Linux and macOS, and that for Windows' PowerShell."""

    unix: str
    windows: str


def collector_url(report_url: str) -> str:
    """Return the URL of the collector that belongs to a report URL."""
    return report_url.rpartition("/plugins/")[0] + COLLECTOR_PATH


def install_lines(report_url: str, has_token: bool) -> InstallLines:
    """Return the lines; with a token, they wait for it to be pasted."""
    collector, option = collector_url(report_url), "--token-stdin " if has_token else ""
    return InstallLines(
        f"curl -fsSLO {shlex.quote(collector)} &&"
        f" python3 collector.pyz install {option}--url {shlex.quote(report_url)}",
        f"iwr -UseBasicParsing {_quote(collector)} -OutFile collector.pyz;"
        f" py -3 collector.pyz install {option}--url {_quote(report_url)}",
    )


def installer_script(system: str, report_url: str, has_token: bool) -> str:
    """Return the script for a system's fleet tools.

    Raises:
        ConfigurationError: there is no such system.
    """
    if system not in SYSTEMS:
        raise ConfigurationError(f"there are installers for {', '.join(SYSTEMS)}, not {system!r}")
    comment, option = (TOKEN_COMMENT, "--token-stdin ") if has_token else ("", "")
    collector = collector_url(report_url)
    if system == "windows":
        return POWERSHELL_SCRIPT.format(
            token_comment=comment,
            token_option=option,
            give="$env:TELEMETRY_TOKEN | " if has_token else "",
            collector=_quote(collector),
            url=_quote(report_url),
        )
    who, before, runner = LINUX if system == "linux" else MACOS
    return SHELL_SCRIPT.format(
        who=who,
        before=before,
        runner=runner,
        token_comment=comment,
        token_check=TOKEN_CHECK if has_token else "",
        token_option=option,
        give="printf '%s\\n' \"$TELEMETRY_TOKEN\" | " if has_token else "",
        collector=shlex.quote(collector),
        url=shlex.quote(report_url),
    )


def _quote(text: str) -> str:
    """Return a text as PowerShell reads it back."""
    return "'" + text.replace("'", "''") + "'"
