"""Builds the native kernels; all else about the package is in pyproject.toml.

They are optional: where there is no C++ compiler the package installs and works without them.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

KERNELS = "cbam_core.native.primitives"
SOURCES = ["cbam_core/native/primitives.cpp", "cbam_core/native/xla.cpp"]
HEADERS = ["cbam_core/native/primitives.h"]
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
# No contraction: a fused multiply-add of one processor rounds otherwise than two steps of another.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-psabi", "-g0"]
THREADS = ["-fopenmp"]


class BuildKernels(build_ext):
    """A plain shared library, not a module of Python."""

    def get_ext_filename(self, name: str) -> str:
        return str(Path(*name.split(".")).with_suffix(SUFFIX))

    def get_export_symbols(self, extension: Extension) -> list[str]:
        return extension.export_symbols

    def build_extension(self, extension: Extension) -> None:
        extension.extra_compile_args, extension.extra_link_args = FLAGS + THREADS, THREADS
        try:
            super().build_extension(extension)
        except (CompileError, LinkError):
            # Apple's compiler has no OpenMP; one thread is better than no kernels.
            extension.extra_compile_args, extension.extra_link_args = FLAGS, []
            super().build_extension(extension)


class AnyPython(bdist_wheel):
    """The library depends on the platform, and on no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension(KERNELS, SOURCES, depends=HEADERS, language="c++", optional=True)],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
)
