# shellcheck shell=bash
# Sourced by the other scripts: creates .venv with all dependencies if needed, and sets PYTHON to its interpreter.
#
# MSG_MS_PYTHON selects the base interpreter. The default is the first available one of Python 3.11, 3.12 and 3.10.

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

create_venv() {
    local stamp
    stamp=$VENV/.installed-$(cksum < "$ROOT/pyproject.toml" | cut -d ' ' -f 1)
    [ -e "$stamp" ] && return
    if [ ! -x "$PYTHON" ]; then
        local base
        base=$(find_python)
        [ -n "$base" ] || fail "no Python 3.10, 3.11 or 3.12 found; install one, or set MSG_MS_PYTHON to its path"
        # A folder without this file is no virtual environment, and not ours to remove.
        [ ! -e "$VENV" ] || [ -e "$VENV/pyvenv.cfg" ] \
            || fail "$VENV is not a virtual environment; rename or remove it"
        rm -rf "$VENV"
        "$base" -m venv "$VENV" \
            || fail "$base can't create a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    fi
    echo "Installing MindSpore and other packages into .venv (about 1 GB to download, takes minutes) ..."
    # The pip of Python 3.10.0 to 3.10.2 installs no project without a setup.py in editable mode.
    { "$PYTHON" -m pip install --quiet --disable-pip-version-check 'pip>=21.3' \
        && "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "${ROOT}[dev]"; } 2> "$VENV/install.log" \
        || { tail -n 5 "$VENV/install.log" >&2; fail "installation failed; the full log is in .venv/install.log"; }
    rm -f "$VENV"/.installed-*
    touch "$stamp"
}

create_venv
