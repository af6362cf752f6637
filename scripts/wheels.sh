#!/bin/sh
# Builds what hosts install without a network: the wheels of dfs and of everything it needs.
#
#   scripts/wheels.sh [DIRECTORY [LOCAL]]      writes DIRECTORY/dfs-VERSION-cp311-x86_64.tar
#
# DIRECTORY is dist/ where none is given.  With LOCAL the version gets that suffix (0.1.0+LOCAL),
# which keeps two builds of one release apart on a host.  The archive holds the wheels and a
# requirements.txt with the hash of each; what comes from a package index is checked against the
# lock files first.  PYTHON is the Python of the hosts (/usr/bin/python3): they need the same
# version and architecture, since some of the packages are compiled.
set -eu
cd "$(dirname "$0")/.."
out=${1:-dist}
local=${2:-}
python=${PYTHON:-/usr/bin/python3}

fail() {
    echo "wheels: $*" >&2
    exit 2
}

"$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$python is no Python 3.11 or newer with ensurepip (Debian: python3-venv)"
"$python" -c 'import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h").exists())' ||
    fail "$python has no header files (Debian: python3-dev)"
pkg-config --exists fuse3 2>/dev/null ||
    fail "no header files of libfuse (Debian: pkg-config libfuse3-dev)"

release=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
version=$release${local:++$local}
tag=$("$python" -c 'import platform, sys
print("cp%d%d-%s" % (*sys.version_info[:2], platform.machine()))')
name=dfs-$version-$tag
mkdir -p "$out"
out=$(cd "$out" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# A copy: what an earlier build left in this tree must not get into the package.
mkdir "$work/source" "$work/$name"
cp -R pyproject.toml setup.py README.md LICENSE dfswire metad chunkd dfsmount "$work/source"
find "$work/source" \( -name '*.so' -o -name '*.pyc' \) -delete
sed -i "s/^version = \"$release\"\$/version = \"$version\"/" "$work/source/pyproject.toml"

"$python" -m venv "$work/venv"
pip() {
    "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"
}
pip install --require-hashes -r requirements-build.txt
# Built without isolation: an isolated build would fetch its tools unpinned and unchecked.
pip wheel --require-hashes --no-build-isolation -r requirements.txt --wheel-dir "$work/$name"
pip wheel --no-deps --no-build-isolation --no-index "$work/source" --wheel-dir "$work/$name"

"$python" - "$work/$name" <<'END'
import hashlib
import pathlib
import sys
import zipfile

directory = pathlib.Path(sys.argv[1])
lines = []
for wheel in sorted(directory.glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    if name == "dfsmount" and not any(
        each.startswith("dfsmount/lowlevel/extra.") and each.endswith(".so")
        for each in zipfile.ZipFile(wheel).namelist()
    ):
        sys.exit("wheels: dfsmount/lowlevel/extra.c was not compiled (gcc, libfuse3-dev)")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
(directory / "requirements.txt").write_text("".join(lines))
END
# Complete under its name, or not there.
tar -C "$work" --owner=0 --group=0 -cf "$out/.$name.tar" "$name"
mv "$out/.$name.tar" "$out/$name.tar"
echo "$out/$name.tar"
