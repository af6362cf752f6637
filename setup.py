"""Builds dfsmount/lowlevel/extra.c; all else about this package is in pyproject.toml.

It is a plain shared library, not a Python module, but setuptools knows how to compile such a file
for editable installs and for wheels alike.  Where that is impossible (no compiler, no header files
of libfuse) the package is installed without it, and the mount says what is missing.
"""

from __future__ import annotations

import subprocess

from setuptools import Extension, setup


def pkg_config(*words: str) -> list[str]:
    """What pkg-config answers about libfuse; nothing when it does not know."""
    try:
        done = subprocess.run(["pkg-config", *words, "fuse3"], capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return done.stdout.split()


setup(
    ext_modules=[
        Extension(
            "dfsmount.lowlevel.extra",
            ["dfsmount/lowlevel/extra.c"],
            extra_compile_args=["-std=gnu11", "-fvisibility=hidden", *pkg_config("--cflags")],
            extra_link_args=[*(pkg_config("--libs") or ["-lfuse3"]), "-ldl"],
            optional=True,
        )
    ]
)
