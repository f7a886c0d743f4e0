#!/bin/sh
# Renews requirements.txt and requirements-dev.txt from the .in files: the newest versions that agree, for every
# supported Python and platform, with the hash of every file and no address. The resolver lives in a throw-away
# environment and is no dependency of the project.
set -eu
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq uv

compile() {
    "$scratch/venv/bin/uv" pip compile --quiet --no-config --upgrade --universal --python-version 3.11 \
        --only-binary :all: --generate-hashes --no-annotate --no-header --no-emit-index-url "$1" -o "$2"
}
compile requirements.in requirements.txt
compile requirements-dev.in requirements-dev.txt
git --no-pager diff --stat -- requirements.txt requirements-dev.txt
