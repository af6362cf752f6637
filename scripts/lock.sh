#!/bin/sh
# Writes the lock files: every package that is ever installed, with its version and hashes.
#
# Run by `make lock` after a change of dependencies.  Needs uv, which asks the package index that it is
# configured for; the files themselves name no index and no host.
set -eu
cd "$(dirname "$0")/.."

uv=${UV:-uv}
command -v "$uv" >/dev/null || {
    echo "lock: needs uv; install it ('pip install uv') or say where it is: make lock UV=/path/to/uv" >&2
    exit 2
}

compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-annotate "$@"
}

compile pyproject.toml -o requirements.txt
compile pyproject.toml --extra test --constraint requirements.txt -o requirements-test.txt
compile requirements-build.in -o requirements-build.txt
compile requirements-ansible.in -o requirements-ansible.txt

if grep -n -e '://' -e '--index' -e '--find-links' \
    requirements.txt requirements-test.txt requirements-build.txt requirements-ansible.txt; then
    echo "lock: the lock files must not name a host" >&2
    exit 1
fi
