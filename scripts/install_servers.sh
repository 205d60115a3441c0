#!/usr/bin/env bash
# Install missing programs on Debian and Ubuntu, as root; elsewhere only list them.
#     install_servers.sh          the servers and the browser that the tests start
#     install_servers.sh check    the programs of `make check`
# No service is running afterwards, or starts with the machine.
set -euo pipefail

PATH=$PATH:/usr/sbin:/usr/local/sbin
policy=/usr/sbin/policy-rc.d

packages=()
command -v nginx >/dev/null || packages+=(nginx-light)
command -v promtool >/dev/null || packages+=(prometheus)
if [ "${1:-}" = check ]; then
    command -v amtool >/dev/null || packages+=(prometheus-alertmanager)
    command -v shellcheck >/dev/null || packages+=(shellcheck)
    command -v systemd-analyze >/dev/null || packages+=(systemd)
else
    command -v mariadbd >/dev/null || packages+=(mariadb-server)
    command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
        packages+=(postgresql)
    command -v pgbouncer >/dev/null || packages+=(pgbouncer)
    command -v curl >/dev/null || packages+=(curl)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || packages+=(chromium)
    command -v strace >/dev/null || packages+=(strace)
    command -v zsh >/dev/null || packages+=(zsh)
    command -v fish >/dev/null || packages+=(fish)
    command -v systemd-analyze >/dev/null || packages+=(systemd)
fi
if [ ${#packages[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, so not tested here: ${packages[*]}" >&2
    exit 0
fi

echo "installing ${packages[*]}"
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" # packages then don't start their services
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-remove --no-install-recommends "${packages[@]}" </dev/null >/dev/null
if command -v systemctl >/dev/null; then
    for package in "${packages[@]}"; do
        service=${package%-server}
        systemctl disable --quiet "${service%-light}" 2>/dev/null || true # most have no service
    done
fi
