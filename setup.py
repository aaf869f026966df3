"""Builds the compiled PCM modules; everything else about the package stands in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

# One abi3 wheel an architecture serves every CPython from 3.11 on.
LIMITED_API = "0x030B0000"

debug = os.environ.get("STTD_CYTHON_DEBUG") == "1"
checks = {"boundscheck": True, "wraparound": True, "initializedcheck": True, "linetrace": True} if debug else {}

extensions = [
    Extension(
        f"sttd.{name}",
        [f"src/sttd/{name}.pyx"],
        # -fno-math-errno lets sqrt become one instruction; products and sums stay as they are written, so that every
        # machine computes the same bits. Jamming loops together keeps GCC from vectorising the filters' inner ones.
        extra_compile_args=["-O3", "-fno-math-errno", "-ffp-contract=off", "-fno-loop-unroll-and-jam"],
        # Lines can be traced only where the extension knows the interpreter's insides.
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if debug else [("Py_LIMITED_API", LIMITED_API)],
        libraries=["m"],
        py_limited_api=not debug,
    )
    for name in ("_pcm", "_resampler", "_vad")
]

setup(
    ext_modules=cythonize(extensions, compiler_directives=checks),
    options={} if debug else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
