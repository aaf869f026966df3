#!/usr/bin/env bash
# Tries what `make release` has put into dist/, as root: tools/try_release.sh arm64 trixie [wheel|deb]
# In a fresh root without a compiler: the wheel by pip and by pipx, and the Debian package, started by hand; both
# recognizers transcribe. Needs debootstrap, systemd-nspawn and the tests' models; for arm64 qemu-user-static, and time.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=$1
release=${2:-trixie}
plain=$PWD/.cache/plain-$release-$arch
root=$PWD/.cache/release-$release-$arch

if [ "$arch" = arm64 ] && [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    # The ELF header of such a program, and which of its bits matter; F keeps qemu open for use in another root.
    elf='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":qemu-aarch64:M::$elf:$mask:/usr/bin/qemu-aarch64-static:F" >/proc/sys/fs/binfmt_misc/register
fi
if [ ! -e "$plain" ]; then
    rm -rf "$plain.partial"
    debootstrap --arch="$arch" --variant=minbase --include=python3-venv,pipx,ca-certificates \
        "$release" "$plain.partial" >/dev/null
    cp /etc/ssl/certs/ca-certificates.crt "$plain.partial/etc/ssl/certs/"
    mv "$plain.partial" "$plain"
fi
rm -rf "$root"
cp -a --reflink=auto "$plain" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/stick"
cp -r .cache/models/vosk/vosk-small-ko .cache/models/faster_whisper/tiny.en src/sttd/sample.wav dist "$root/stick/"

inside() {
    systemd-nspawn --quiet --register=no --keep-unit --pipe -D "$root" --chdir=/stick \
        --setenv=PIP_CERT=/etc/ssl/certs/ca-certificates.crt --setenv=DEBIAN_FRONTEND=noninteractive "$@"
}
# shellcheck disable=SC2016 # these are the inner shell's variables
hear='
hear() { # sttd, a recording, options of the daemon
    sttd=$1 recording=$2; shift 2
    "$sttd" --listen 127.0.0.1:18090 "$@" >/stick/log 2>&1 & daemon=$!
    until text=$("$sttd" transcribe --url ws://127.0.0.1:18090/ws/stt "$recording" 2>/dev/null); do
        kill -0 $daemon || { cat /stick/log; exit 1; }
        sleep 1
    done
    grep VmRSS /proc/$daemon/status
    kill $daemon; wait $daemon || true
    echo "$* heard: $text"
    test -n "$text"
}'
wheel=$(cd dist && ls sttd-*"$([ "$arch" = arm64 ] && echo aarch64 || echo x86_64)".whl)
parts=${3:-wheel deb}
[[ $parts != *wheel* ]] || inside sh -euc "$hear
    ! command -v gcc
    apt-get update -qq && apt-get install -y -qq --no-install-recommends libatomic1 # vosk on arm64
    python3 -m venv /venv
    /venv/bin/pip install -q --disable-pip-version-check 'dist/$wheel[vosk]'
    /venv/bin/sttd --version
    /venv/bin/sttd models import vosk-small-ko
    hear /venv/bin/sttd sample.wav --provider vosk --model vosk-small-ko
    pipx install --quiet 'dist/$wheel'
    ~/.local/bin/sttd --version"
[[ $parts != *deb* ]] || inside sh -euc "$hear
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends ./dist/sttd_*_$arch.deb
    du -sm /opt/sttd
    sttd models import vosk-small-ko
    sttd models import tiny.en
    hear sttd sample.wav --provider vosk --model vosk-small-ko
    hear sttd sample.wav
    apt-get purge -y -qq sttd
    test ! -e /opt/sttd"
