#!/bin/sh
# Installs packages into an image's environment, without dependencies and without byte code; runs in the build only.
#
#   install [pip's arguments]    with LEFT_OUT="name ..." without these lines of a lock
#   install --prune-torch | --prune-tests | --prune-symbols | --prune-nixl | --keep-pip
set -eu

python=${PYTHON:-/opt/slos/bin/python}
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

prune() {
    case $1 in
    --prune-torch) # C++ headers, C++ tests and protoc; the shared-memory manager stays
        rm -rf "$packages"/torch/include "$packages"/torch/test
        find "$packages"/torch/bin -type f ! -name torch_shm_manager -delete
        ;;
    --prune-tests) rm -rf "$packages"/numba/tests "$packages"/numpy/tests "$packages"/numpy/*/tests ;;
    --prune-symbols) # of the two libraries that come with many
        LD_LIBRARY_PATH=/pip/strip /pip/strip/strip --strip-unneeded \
            "$packages"/llvmlite/binding/*.so "$packages"/cryptography/hazmat/bindings/*.so
        ;;
    --prune-nixl) rm -rf "$packages"/nixl_ep "$packages"/nixl_ep_cu* ;;
    --keep-pip) cp -r /pip/lib/python3.*/site-packages/pip "$packages"/ ;;
    esac
}

while [ $# -gt 0 ]; do
    case $1 in
    --prune-* | --keep-pip) prune "$1" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || exit 0

if [ "$1" = -r ] && [ -n "${LEFT_OUT:-}" ]; then
    lock=$2
    shift 2
    grep -vE "^($(echo "$LEFT_OUT" | tr ' ' '|'))==" "$lock" > /tmp/lock.txt
    set -- -r /tmp/lock.txt "$@"
fi
if [ -s /run/secrets/pip_ca ]; then
    export PIP_CERT=/run/secrets/pip_ca
fi
[ ! -d /images/wheels ] || export PIP_FIND_LINKS=/images/wheels
export PIP_CACHE_DIR=/root/.cache/pip
/pip/bin/python -m pip --quiet --python "$python" --disable-pip-version-check --no-input install \
    --only-binary=:all: --no-compile --progress-bar=off --no-deps "$@"
rm -f /tmp/lock.txt
