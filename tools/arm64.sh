#!/usr/bin/env bash
# Builds the compiled modules for aarch64 and runs something there, under qemu-user as a Pi 4's Cortex-A72:
#
#   tools/arm64.sh -m pytest tests/pcm          the tests (the default)
#   tools/arm64.sh -m bench resampler buffers   the benchmark
#
# Needs qemu-user-static, gcc-aarch64-linux-gnu with libc6-dev-arm64-cross, and a venv (.venv, or $PYTHON) with pip, Cython and setuptools. Debian's
# Python for arm64 is unpacked, not installed, under build/arm64; packages come as wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$PWD/.venv/bin/python}
home=$PWD/build/arm64
root=$home/root
mkdir -p "$home"/{lists/partial,cache/archives/partial,debs,root}

if [ ! -x "$root/usr/bin/python3.11" ]; then
    apt() {
        apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
            -o Dir::State::lists="$home/lists" -o Dir::Cache="$home/cache" -o Dir::State::status=/dev/null "$@"
    }
    apt update
    (cd "$home/debs" && apt download libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libssl3 libffi8 libexpat1 libbz2-1.0 \
        liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 libreadline8 libcrypt1 \
        python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib)
    for deb in "$home"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
fi

if [ ! -d "$home/site/numpy" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --target "$home/site" --only-binary=:all: \
        --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
        --platform manylinux2014_aarch64 \
        numpy scipy soxr soundfile trio trio-websocket h11 pytest pytest-trio pytest-timeout hypothesis websockets jiwer espeakng-loader
fi

rm -rf "$home/src" && cp -r src "$home/src" && rm -f "$home"/src/sttd/*.so "$home"/src/sttd/_*.c
(cd "$home" && cp ../../{setup.py,pyproject.toml,README.md,LICENSE} . &&
    CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" "$python" setup.py -q build_ext --inplace)

[ $# -gt 0 ] || set -- -m pytest -p no:cacheprovider --timeout=600 tests/pcm
export QEMU_LD_PREFIX=$root PYTHONHOME=$root/usr PYTHONPATH=$home/src:$home/site STTD_NATIVE_CHECK=arm64
exec qemu-aarch64-static -cpu cortex-a72 "$root/usr/bin/python3.11" "$@"
