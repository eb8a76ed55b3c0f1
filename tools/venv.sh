# Sourced by the other scripts: makes .venv, installs the package with some extras into it, and activates it.
#
#   source tools/venv.sh runtime,report,demo
#
# It installs again only when setup.py or setup.cfg changed, so a second run starts at once. PYTHON names the
# interpreter to make .venv with (default: python3).

_venv_die() {
    echo "error: $*" >&2
    exit 1
}

_venv_create() { # root
    local python="${PYTHON:-python3}"
    command -v "$python" >/dev/null ||
        _venv_die "no '$python' found; install Python 3.11 or newer, or set PYTHON to one."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        _venv_die "Python 3.11 or newer is needed; '$python' is $("$python" -V 2>&1). Set PYTHON to a newer one."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        _venv_die "'$python' cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"
    echo "Making $1/.venv with $("$python" -V 2>&1)"
    "$python" -m venv "$1/.venv" || _venv_die "could not make $1/.venv"
}

_venv_install() { # root extras
    local stamp="$1/.venv/.installed-$2" wanted
    wanted="$(cat "$1/setup.py" "$1/setup.cfg" | sha256sum)$1"
    if [[ ! -f "$stamp" || "$(<"$stamp")" != "$wanted" ]]; then
        echo "Installing tfmcu-prune[$2] into $1/.venv (TensorFlow is large: this takes some minutes the first time)"
        "$1/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 --editable "$1[$2]" ||
            _venv_die "pip could not install tfmcu-prune[$2]; its message is above. Is there a network, or a package mirror?"
        printf '%s' "$wanted" >"$stamp"
    fi
}

_venv_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# pip comes last into a new environment, so where it is, an interrupted run left nothing half-made.
[[ -x "$_venv_root/.venv/bin/pip" ]] || _venv_create "$_venv_root"
_venv_install "$_venv_root" "$1"
export PATH="$_venv_root/.venv/bin:$PATH" VIRTUAL_ENV="$_venv_root/.venv"
# TensorFlow's start-up lines hide what the scripts print.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
