# Sourced by the other scripts: makes .venv with everything that is needed, once, and sets PYTHON to its interpreter.
#
# MSG_MS_PYTHON names the Python to build it with; otherwise the first of 3.11, 3.12 and 3.10 that is found.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python

fail() {
    echo "error: $*" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in ${MSG_MS_PYTHON:-python3.11 python3.12 python3.10 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

make_venv() {
    local stamp
    stamp=$VENV/.installed-$(cksum < "$ROOT/pyproject.toml" | cut -d ' ' -f 1)
    [ -e "$stamp" ] && return
    if [ ! -x "$PYTHON" ]; then
        local base
        base=$(find_python)
        [ -n "$base" ] || fail "no Python 3.10, 3.11 or 3.12 found; install one, or name it in MSG_MS_PYTHON"
        rm -rf "$VENV"
        "$base" -m venv "$VENV" || fail "$base can't make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    fi
    echo "Installing MindSpore and the rest into .venv (about 1 GB to download; minutes) ..."
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$ROOT[dev]" 2> "$VENV/install.log" \
        || { tail -n 5 "$VENV/install.log" >&2; fail "installing failed; the whole log is in .venv/install.log"; }
    rm -f "$VENV"/.installed-*
    touch "$stamp"
}

make_venv
