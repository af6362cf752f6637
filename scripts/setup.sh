#!/bin/sh
# Makes this clone ready: Debian packages, the virtual environment .venv, and this package in it.
#
#   scripts/setup.sh run     what the file system needs
#   scripts/setup.sh test    the same, and what the tests need
#   scripts/setup.sh hosts   the same, and what the tests on booted hosts need (Ansible, nspawn)
#
# Used by `make demo`, `make test` and the like.  It installs what is missing and nothing else; when
# all is there, it takes a fraction of a second and needs no network.  Python packages are exactly
# those of the lock files, checked by their hashes.  PYTHON=/path/to/python3 overrides the choice.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}

fail() {
    echo "setup: $*" >&2
    exit 2
}

case $kind in
    run) lock=requirements.txt ;;
    test | hosts) lock=requirements-test.txt ;;
    *) fail "unknown kind of set-up: $kind (run, test or hosts)" ;;
esac

# --- one at a time in one clone --------------------------------------------------------------

[ "$(uname -s)" = Linux ] || fail "dfs needs Linux (FUSE, fusermount3); this is $(uname -s)"
exec 9<scripts/setup.sh
flock 9

# --- is there anything to do? ----------------------------------------------------------------

stamp() {
    # A clone that was moved needs a new environment: its scripts hold the old path.
    pwd
    sha256sum requirements-build.txt "$1" pyproject.toml setup.py dfsmount/lowlevel/extra.c \
        scripts/setup.sh
}

ansible_stamp() {
    pwd
    sha256sum requirements-ansible.txt
}

up_to_date() {
    [ -x .venv/bin/dfs ] && .venv/bin/python -c '' 2>/dev/null &&
        [ "$(cat ".venv/installed-$1" 2>/dev/null)" = "$(stamp "$2")" ]
}

ready_for_hosts() {
    # Ansible is apart from .venv: no code of ours uses it.
    command -v systemd-nspawn >/dev/null && command -v mmdebstrap >/dev/null &&
        [ "$(cat .venv-ansible/installed 2>/dev/null)" = "$(ansible_stamp)" ] &&
        .venv-ansible/bin/python -c '' 2>/dev/null
}

if command -v fusermount3 >/dev/null && { [ "$kind" != hosts ] || ready_for_hosts; }; then
    if up_to_date test requirements-test.txt; then exit 0; fi
    if [ "$kind" = run ] && up_to_date run requirements.txt; then exit 0; fi
fi

# --- system packages -------------------------------------------------------------------------

cannot_install() {
    # Why packages can't be installed here, in words; nothing when they can.
    if ! command -v apt-get >/dev/null; then
        echo "please install (this is not a Debian-like system, names may differ): $*"
    elif [ "$(id -u)" != 0 ] &&
        ! { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }; then
        echo "not root, and no sudo without a password; please run as root: apt-get install $*"
    fi
}

install_packages() {
    reason=$(cannot_install "$@")
    [ -z "$reason" ] || fail "$reason"
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    echo "setup: installing $*"
    # The package lists are locked while another clone does the same.
    tries=10
    until $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
        update >/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "'apt-get update' failed (see above); is there a network?"
        sleep 6
    done
    # shellcheck disable=SC2086  # as_root may be empty
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@" >/dev/null ||
        fail "'apt-get install $*' failed (see above)"
}

find_python() {
    # pyenv and the like put names on PATH that do not run, so each is tried.
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

python=$(find_python)
if [ -z "$python" ]; then
    [ -z "${PYTHON:-}" ] || fail "$PYTHON is not a Python 3.11 or newer"
    packages=python3
    if command -v apt-cache >/dev/null && apt-cache show python3.11 >/dev/null 2>&1; then
        packages=python3.11 # Ubuntu 22.04 has it beside its own 3.10
    fi
    install_packages $packages
    python=$(find_python)
    [ -n "$python" ] || fail "needs Python 3.11 or newer; this system has" \
        "$(python3 --version 2>/dev/null || echo none). Install one, or set PYTHON to its path"
fi

has_module() {
    "$python" -c "import $1" 2>/dev/null
}

has_headers() {
    "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h").exists())'
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
missing=
command -v fusermount3 >/dev/null || missing="$missing fuse3"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v pkg-config >/dev/null || missing="$missing pkg-config"
{ command -v pkg-config >/dev/null && pkg-config --exists fuse3; } || missing="$missing libfuse3-dev"
has_headers || missing="$missing python$version-dev"
has_module ensurepip || missing="$missing python$version-venv"
# shellcheck disable=SC2086  # a list of names
[ -z "$missing" ] || install_packages $missing

has_headers || fail "$python has no header files (Python.h), and python$version-dev is not for it"
has_module ensurepip || fail "$python cannot make virtual environments (module ensurepip)"
pkg-config --exists fuse3 || fail "pkg-config does not find fuse3 (libfuse3-dev)"

# --- applications that the tests run on the mount ---------------------------------------------

has_command() {
    # PostgreSQL's server programs are not on PATH in Debian.
    command -v "$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1
}

if [ "$kind" != run ]; then
    missing=
    has_command git || missing="$missing git"
    has_command sqlite3 || missing="$missing sqlite3"
    has_command initdb || missing="$missing postgresql"
    has_command rsync || missing="$missing rsync"
    has_command make || missing="$missing make"
    has_command zip && has_command unzip || missing="$missing zip unzip"
    has_command logrotate || missing="$missing logrotate"
    has_command setfacl || missing="$missing acl"
    has_command lsattr || missing="$missing e2fsprogs"
    has_command setpriv || missing="$missing util-linux"
    { has_command ip && has_command tc; } || missing="$missing iproute2"
    has_command nft || missing="$missing nftables"
    has_command systemd-analyze || missing="$missing systemd"
    has_command mkfs.xfs || missing="$missing xfsprogs"
    if [ "$kind" = hosts ]; then
        has_command systemd-nspawn || missing="$missing systemd-container"
        has_command mmdebstrap || missing="$missing mmdebstrap"
        has_command ssh-keygen || missing="$missing openssh-client"
        # The hosts' Python is Debian's own, whatever this clone uses.
        [ -x /usr/bin/python3 ] && [ -e /usr/include/python3.11/Python.h ] ||
            missing="$missing python3-dev"
        /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
    fi
    if [ -n "$missing" ]; then
        # Everything else can be tested without them, so their absence ends the set-up of CI only.
        reason=$(cannot_install $missing)
        if [ -z "$reason" ]; then
            # shellcheck disable=SC2086  # a list of names
            install_packages $missing
        elif [ -n "${CI:-}" ]; then
            fail "$reason"
        else
            echo "setup: $reason" >&2
            echo "setup: going on; tests of applications that are missing are skipped" >&2
        fi
    fi
fi

# --- the virtual environment -----------------------------------------------------------------

if ! .venv/bin/python -c "import sys; sys.exit(sys.version_info[:2] != (${version%.*}, ${version#*.}))" \
    2>/dev/null || [ "$(head -n 1 .venv/installed-* 2>/dev/null | grep -cxF "$(pwd)")" = 0 ]; then
    echo "setup: making .venv with $python (Python $version)"
    "$python" -m venv --clear .venv
fi

install_python() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input "$@" ||
        fail "pip failed (see above): $*"
}

echo "setup: installing $lock"
# Built without isolation: an isolated build would fetch its tools unpinned and unchecked.
install_python --require-hashes -r requirements-build.txt
install_python --require-hashes --no-build-isolation -r "$lock"
install_python --no-deps --no-build-isolation --no-index --editable .
rm -f .venv/installed-*
installed=test
[ "$kind" != run ] || installed=run
stamp "$lock" >".venv/installed-$installed"

if [ "$kind" = hosts ] && ! ready_for_hosts; then
    echo "setup: making .venv-ansible"
    "$python" -m venv --clear .venv-ansible
    .venv-ansible/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r requirements-ansible.txt || fail "pip failed (see above): Ansible"
    ansible_stamp >.venv-ansible/installed
fi
