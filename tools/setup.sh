#!/bin/sh
# Makes .venv from the lock, or leaves it alone when it is up to date. Called by every make target.
# PYTHON=… chooses the interpreter; otherwise the newest tried below that works is taken.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PIP_ROOT_USER_ACTION=ignore

lock=requirements/development.txt
stamp=.venv/.installed
# Where it was installed (a moved environment is a broken one), and from what.
wanted="$(pwd) $(cat "$lock" pyproject.toml tools/setup.sh | cksum)"

fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

works() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        works "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer."
        echo "$PYTHON"
        return
    fi
    oldest=
    for candidate in python3.13 python3.12 python3.11 python3.14 python3 python; do
        works "$candidate" || continue
        oldest=$candidate
        "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || continue
        echo "$candidate"
        return
    done
    [ -n "$oldest" ] || fail "Python 3.11 or newer is needed, and none was found." \
        "Install one (Debian: apt install python3 python3-venv; macOS: brew install python@3.13)," \
        "or name one: make PYTHON=/path/to/python3.13"
    echo "$oldest"
}

make_venv() {
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
        "$python has no venv module (Debian splits it off)." \
        "Install it: apt install python3-venv (or $(basename "$python")-venv), or name another" \
        "Python: make PYTHON=/path/to/python3.13"
    echo "setup: making .venv with $("$python" -V)" >&2
    "$python" -m venv --clear .venv
}

if [ -f "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    installed=$(cat "$stamp")
    [ "$installed" != "$wanted" ] || exit 0
    rm -f "$stamp" # a set-up that is cut short starts afresh
    case $installed in "$(pwd) "*) ;; *) make_venv ;; esac
else
    make_venv
fi

echo "setup: installing $(grep -c '^[a-z].*==' "$lock") locked packages, once (a minute or so)" >&2
.venv/bin/python -m pip install --quiet --require-hashes -r "$lock" || fail \
    "The locked packages could not be installed; pip says why above."
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
echo "$wanted" > "$stamp"
