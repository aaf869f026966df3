#!/usr/bin/env bash
# Tries README.md's two commands in a fresh root of a Debian release, as root: tools/fresh_root.sh bookworm
# It gets this tree's files and nothing else: no ../shared, no models, no packages, no settings of pip but certificates.
# Needs debootstrap and systemd-nspawn. The root stays in .cache/fresh-RELEASE until the next run. With SERVE_ONLY=1 it
# leaves the tests out; with TESTS="tests/unit ..." it runs a part of them.
set -euo pipefail
cd "$(dirname "$0")/.."
release=$1
root=$PWD/.cache/fresh-$release

tools/debian_root.sh "$release"
rm -rf "$root"
cp -a --reflink=auto ".cache/$release" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/home/sttd"
git ls-files -z | xargs -0 tar cf - | tar xf - -C "$root/home/sttd"

inside() {
    systemd-nspawn --quiet --register=no --keep-unit --pipe -D "$root" --chdir=/home/sttd \
        --setenv=PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@"
}
inside sh -eu -c '
    make serve >/var/log/serve.log 2>&1 & serve=$!
    say() { .venv/bin/sttd transcribe 2>/dev/null; }
    until said=$(say); do kill -0 $serve; sleep 1; done
    kill -TERM $serve; wait $serve || true
    cat /var/log/serve.log
    echo "sttd transcribe: $said"'
grep -q "serves faster_whisper" "$root/var/log/serve.log"
if grep -qi "warning\|deprecat\|notice" "$root/var/log/serve.log"; then
    echo "make serve warned of something"
    exit 1
fi
[ -n "${SERVE_ONLY:-}" ] || inside make test ${TESTS:+PYTEST_ARGS="-n 2 --dist loadfile $TESTS"}
