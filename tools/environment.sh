#!/bin/sh
# Makes the virtual environment $VENV with $BASE_PYTHON, or with the first Python that will do.
# An environment that is there and works is kept. $UV, if given, makes it, and needs no module venv.
set -eu

least="3.11"
will_do() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if will_do "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

base="${BASE_PYTHON:-}"
if [ -z "$base" ]; then
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if will_do "$candidate"; then
            base="$candidate"
            break
        fi
    done
fi
if [ -z "$base" ]; then
    echo "sonibook needs Python $least or newer and found none: install one, or say where it is" \
        "with 'make setup BASE_PYTHON=/path/to/python3'." >&2
    exit 1
fi
if ! will_do "$base"; then
    echo "$base is not Python $least or newer: give another as BASE_PYTHON." >&2
    exit 1
fi
if [ -n "${UV:-}" ]; then
    echo "Making the environment $VENV with $("$base" --version 2>&1) and uv."
    exec "$UV" venv --quiet --seed --clear --python "$(command -v "$base")" "$VENV"
fi
if ! "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$base cannot make environments, because its module venv or ensurepip is missing:" \
        "install it (on Debian and Ubuntu: apt-get install python3-venv) and try again." >&2
    exit 1
fi
echo "Making the environment $VENV with $("$base" --version 2>&1). Installing takes some minutes."
"$base" -m venv --clear "$VENV"
