#!/usr/bin/env bash
# A root of a Debian release with what README.md asks for, made once: tools/debian_root.sh bookworm
# It lies in .cache/RELEASE and is copied from there. Needs root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/.cache/$1
if [ ! -e "$root" ]; then
    rm -rf "$root.partial"
    mkdir -p .cache
    debootstrap --variant=minbase --include=python3,python3-venv,python3-dev,gcc,libc6-dev,make,ca-certificates \
        "$1" "$root.partial" >/dev/null
    cp /etc/ssl/certs/ca-certificates.crt "$root.partial/etc/ssl/certs/" # of whatever leads to an index of packages
    mv "$root.partial" "$root"
fi
