#!/bin/sh
# Puts the fuzzer of its own lock into .fuzz, or leaves it alone when it is up to date. Called by
# `make fuzz`, after tools/setup.sh. Where the lock has none for this Python or machine, .fuzz stays
# empty, and who calls it says so (tests/fuzz).
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PIP_ROOT_USER_ACTION=ignore

lock=requirements/fuzz.txt
stamp=.fuzz/.installed
# What it was installed from, and for which Python: its wheel is for one alone.
wanted="$(.venv/bin/python -VV | cksum) $(cksum < "$lock")"
[ "$(cat "$stamp" 2>/dev/null || :)" != "$wanted" ] || exit 0

rm -rf .fuzz
mkdir .fuzz
# Wheels only: building it takes a clang of the right version.
.venv/bin/python -m pip install --quiet --target .fuzz --require-hashes --only-binary :all: \
    -r "$lock" || {
    echo "fuzz: the fuzzer of $lock could not be installed; pip says why above." >&2
    exit 1
}
echo "$wanted" > "$stamp"
