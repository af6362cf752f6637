#!/bin/sh
# A cluster of three servers on this machine, mounted on ./mnt, with proof that it works.
#
#   scripts/demo.sh          start it (again): everything is kept in .demo
#   scripts/demo.sh stop     unmount and stop; the data stays in .demo
#
# Run by `make demo` and `make demo-stop`, after scripts/setup.sh.
set -eu
cd "$(dirname "$0")/.."
dfs=.venv/bin/dfs

fail() {
    echo "demo: $*" >&2
    exit 2
}

if [ "${1:-start}" = stop ]; then
    if [ ! -e .demo/cluster.toml ]; then
        echo "demo: there is none here"
        exit 0
    fi
    [ -x "$dfs" ] || fail "$dfs is missing; run scripts/setup.sh"
    exec "$dfs" down --dir .demo
fi

# --- can FUSE work here? ---------------------------------------------------------------------

if [ ! -c /dev/fuse ] && [ "$(id -u)" = 0 ]; then
    modprobe fuse 2>/dev/null || true # what it achieved is seen on the next line
fi
[ -c /dev/fuse ] || fail "there is no /dev/fuse: the kernel has no FUSE, or this is a container" \
    "without it (docker run needs --device /dev/fuse --cap-add SYS_ADMIN)"
(: <>/dev/fuse) 2>/dev/null || fail "/dev/fuse cannot be opened by $(id -un)"

# --- up --------------------------------------------------------------------------------------

"$dfs" up --dir .demo --nodes 3 --replicas 2 --mount mnt

if [ -e mnt/demo/started ]; then
    echo "demo: found again what was stored before: $(cat mnt/demo/started)"
else
    mkdir -p mnt/demo
    echo "demo first started on $(date)" >mnt/demo/started
fi

# --- proof: what comes out is what went in ---------------------------------------------------

proof=$(mktemp)
trap 'rm -f "$proof"' EXIT
head -c 20000000 /dev/urandom >"$proof"
cp "$proof" mnt/demo/proof
sum_in=$(sha256sum <"$proof")
sum_out=$(sha256sum <mnt/demo/proof)
[ "$sum_in" = "$sum_out" ] || fail "what came out is not what went in: $sum_in, $sum_out"
echo "demo: copied 20 MB into mnt/demo/proof and out again: sha256 ${sum_in%% *} both times"

cat <<EOF

Running: one metad, three chunkds, and a mount on ./mnt.  Every chunk has two replicas.  Try

    cp -r docs mnt/ && ls -l mnt/docs   it is an ordinary directory
    $dfs status                servers, capacity, redundancy
    $dfs info mnt/demo/proof   where the bytes of a file are
    make demo-stop                      stops it; the data stays in .demo
    make demo                           starts what is missing, and finds the data again

A server may die:

    kill -9 \$(grep -o '"pid":[0-9]*' .demo/run/chunkd1.pid | cut -d: -f2)
    sha256sum mnt/demo/proof
EOF
