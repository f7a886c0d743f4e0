#!/bin/sh
# Makes .venv with exactly the locked packages, and does nothing when it is there already.
#
#   tools/setup.sh run    what the gateway and the demo need
#   tools/setup.sh dev    that, and the tools for tests and checks
#
# PYTHON names the interpreter to use; otherwise the first of python3, python3.13, python3.12, python3.11 that is new
# enough is taken.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
    run) lock=requirements.txt ;;
    dev) lock=requirements-dev.txt ;;
    *) echo "usage: tools/setup.sh run|dev" >&2; exit 2 ;;
esac

# A copy of the lock file inside .venv says what was installed. The dev set holds the run set.
is_installed() { [ -x .venv/bin/python ] && cmp -s "$1" ".venv/installed-$1"; }
if is_installed requirements-dev.txt || is_installed "$lock"; then
    exit 0
fi

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
candidates=${PYTHON:-python3 python3.13 python3.12 python3.11}
python=
for candidate in $candidates; do
    if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: Python 3.11 or newer is needed; looked at:" >&2
    for candidate in $candidates; do
        echo "  $candidate: $("$candidate" --version 2>&1 | head -n 1)" >&2
    done
    echo "Install one, or name it: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi

# Debian splits ensurepip into a package of its own; without it, a pip of the interpreter can fill the environment too.
if ! "$python" -c 'import ensurepip' >/dev/null 2>&1 && ! "$python" -m pip --version >/dev/null 2>&1; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; then
        echo "setup: installing $package"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package" >/dev/null; } ||
            { echo "setup: $package could not be installed" >&2; exit 1; }
    else
        echo "setup: $python has neither ensurepip nor pip. On Debian and Ubuntu: apt-get install $package" >&2
        exit 1
    fi
fi

started=$(date +%s)
if [ "$lock" = requirements-dev.txt ] && is_installed requirements.txt && [ ! -e .venv/installed-requirements-dev.txt ]; then
    echo "setup: adding the tools for tests and checks to .venv"
else
    # From nothing, so that a package that left the lock file cannot linger and hide a missing line.
    echo "setup: making .venv with $("$python" --version)"
    if "$python" -c 'import ensurepip' >/dev/null 2>&1; then
        "$python" -m venv --clear .venv
    else
        "$python" -m venv --clear --without-pip .venv
    fi
fi

if .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
    pip=".venv/bin/python -m pip"
else
    pip="$python -m pip --python .venv/bin/python"
fi
# Wheels only: building a source archive would run its code and fetch build tools that no hash vouches for.
# Modules are compiled when first imported, which halves the time this takes.
$pip install -qq --no-input --no-compile --only-binary :all: --no-deps --require-hashes -r "$lock"
cp "$lock" ".venv/installed-$lock"
echo "setup: ready in $(($(date +%s) - started)) s"
