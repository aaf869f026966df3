"""Builds the compiled PCM module; everything else about the package stands in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

# One abi3 wheel an architecture serves every CPython from 3.11 on.
LIMITED_API = "0x030B0000"

debug = os.environ.get("STTD_CYTHON_DEBUG") == "1"
checks = {"boundscheck": True, "wraparound": True, "initializedcheck": True, "linetrace": True} if debug else {}

extension = Extension(
    "sttd._pcm",
    ["src/sttd/_pcm.pyx"],
    # -fno-math-errno lets sqrt and lrint become single instructions; sums keep their written order.
    extra_compile_args=["-O3", "-fno-math-errno"],
    define_macros=[("Py_LIMITED_API", LIMITED_API)] + ([("CYTHON_TRACE_NOGIL", "1")] if debug else []),
    libraries=["m"],
    py_limited_api=True,
)

setup(
    ext_modules=cythonize([extension], compiler_directives=checks),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
