#!/bin/sh
# Writes the locks: one resolution for Python 3.11 and newer on every platform, with hashes.
# uv resolves it in a throw-away environment; installing needs nothing but pip.
set -eu
cd "$(dirname "$0")/.."

if ! command -v uv >/dev/null 2>&1; then
    throw_away=$(mktemp -d)
    trap 'rm -rf "$throw_away"' EXIT
    "${PYTHON:-python3}" -m venv "$throw_away"
    "$throw_away/bin/pip" install --quiet --disable-pip-version-check uv
    PATH=$throw_away/bin:$PATH
fi

compile() {
    name=$1
    shift
    fresh=requirements/$name.new
    # A fresh file: uv prefers the versions of the file that it overwrites.
    echo "# Made by \`make lock\` from pyproject.toml. Do not edit." > "$fresh"
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header "$@" >> "$fresh"
    mv "$fresh" "requirements/$name"
}

compile development.txt pyproject.toml --extra embedded --extra otel --extra sentry --group dev
# The same versions as were tested.
compile production.txt pyproject.toml --constraint requirements/development.txt --no-annotate
# The fuzzer alone: it goes beside .venv, and not into it (tools/setup_fuzzer.sh).
compile fuzz.txt --group pyproject.toml:fuzz
