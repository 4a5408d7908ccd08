#!/usr/bin/env bash
# Measures bin/postern against the proxies that are installed and writes the
# results into docs/benchmarks.md. As root, missing peers are installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

work='' policy=''
trap 'rm -rf ${work:+"$work"} ${policy:+"$policy"}' EXIT

missing=()
command -v nginx >/dev/null || missing+=(nginx-light)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v mitmdump >/dev/null || missing+=(mitmproxy)
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}" >&2
  # A policy of 101 keeps the packages from starting their services.
  policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; fi
  timeout 60 apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive timeout 180 apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    echo "could not install all of ${missing[*]}; what is missing is skipped" >&2
fi

# What is measured lies where the ordinary user of the bench can start it.
work=$(mktemp -d /tmp/bench-build-XXXXXX)
chmod 755 "$work"
install -m 755 bin/postern "$work/postern"
(cd test/bench && CGO_ENABLED=0 go build -trimpath -o "$work/harness" .)
"$work/harness" -postern "$work/postern" -page docs/benchmarks.md "$@"
