#!/usr/bin/env bash
# Check the files of deploy/ with the programs that read them, or their schemas: nothing is started.
# A missing program is reported, and with CI=true it is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=.venv/bin:$PATH:/usr/sbin:/usr/local/sbin
# The oldest Kubernetes and a newer one; fields that either doesn't know are errors.
KUBERNETES=(1.28 1.34)
# Tenths; systemd's own services have 20 and more.
EXPOSURE=15

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
missing=()

have() {
    command -v "$1" >/dev/null || { missing+=("$1, for $2") && return 1; }
}

# Prints nothing unless it fails.
quietly() {
    "$@" >"$folder/output" 2>&1 || { cat "$folder/output" >&2 && return 1; }
}

hadolint deploy/*.Dockerfile
quietly check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.*.yml
for version in "${KUBERNETES[@]}"; do
    quietly kubernetes-validate --strict -k "$version" deploy/kubernetes/receiver.yaml
done

if have promtool deploy/prometheus; then
    quietly promtool check rules deploy/prometheus/alerts.yml
    quietly promtool test rules deploy/prometheus/*_test.yml
fi
if have amtool deploy/prometheus/alertmanager.yml; then
    quietly amtool check-config deploy/prometheus/alertmanager.yml
fi

if have nginx deploy/nginx; then
    cat >"$folder/nginx.conf" <<END
pid $folder/pid;
events {}
http { server { include $PWD/deploy/nginx/developer-telemetry.conf; } }
END
    quietly nginx -t -q -e stderr -c "$folder/nginx.conf"
fi

if have systemd-analyze deploy/systemd; then
    # systemd-analyze needs the program, which `make install` has put here.
    unit=$folder/developer-telemetry.service
    sed "s|/opt/developer-telemetry|$PWD|" deploy/systemd/developer-telemetry.service >"$unit"
    quietly systemd-analyze verify --man=no "$unit"
    quietly systemd-analyze security --offline=true --threshold="$EXPOSURE" "$unit"
fi

for program in "${missing[@]}"; do
    echo "NOT CHECKED: ${program#*, for } (there is no ${program%%, for *})" >&2
done
[ ${#missing[@]} -eq 0 ] || [ "${CI:-}" != true ]
