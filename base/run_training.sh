#!/usr/bin/env bash
# bash run_training.sh --name V --config C [--key value ...]: train with one process a device.
# Sources the vendor's environment file, then hands over to `python -m ssd launch`, whose exit code is this one's. From any
# folder; relative paths are relative to it. Python: $PYTHON, else the active environment's, else the repository's .venv.
set -euo pipefail

base="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$base")"

if [[ "$root" == *:* ]]; then # PYTHONPATH has no way to write it
    echo "error: the path of this repository has a colon, where Python cannot look for modules: $root. Move it." >&2 || true
    exit 2
fi

if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python3
    if [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" && -x "$root/.venv/bin/python" ]]; then
        PYTHON="$root/.venv/bin/python"
    fi
fi

# The vendor's name: the last --name, as for every flag; of a run that goes on, what its config.json says.
name=""
output=""
resume=false
previous=""
for word in "$@"; do
    case "$previous" in
        --name) name="$word" ;;
        --output) output="$word" ;;
    esac
    case "$word" in
        --name=*) name="${word#--name=}" ;;
        --output=*) output="${word#--output=}" ;;
        --resume*) resume=true ;;
        --restart*) [[ "$resume" == true ]] || resume=auto ;;
    esac
    previous="$word"
done
kept="${output/#\~/${HOME:-}}"
if [[ "$resume" == auto && (-f "$kept/checkpoint.pt" || -f "$kept/checkpoint.previous.pt") ]]; then
    resume=true
fi
if [[ -z "$name" && "$resume" == true && -f "$kept/config.json" ]]; then
    name="$(sed -n 's/^"name": {"value": "\([^"]*\)".*/\1/p' "$kept/config.json")"
fi
name="${name:-cpu}"

# An unknown name finds no file here; the launcher says which there are.
IFS=: read -r -a parents <<< "$root${SSD_VENDOR_PATH:+:$SSD_VENDOR_PATH}"
for parent in "${parents[@]}"; do
    variables="$parent/$name/config/environment_variables.sh"
    if [[ -f "$variables" ]]; then
        # shellcheck source=/dev/null
        source "$variables"
    fi
done

# `ssd launch` and `ssd bench` start this script where these variables are not set yet; SSD_VERB says which of them.
export SSD_VARIABLES="$name"
verb="${SSD_VERB:-launch}"
unset SSD_VERB
# torch reads this when it is imported: without it each lost connection shows as a page of C++ warnings.
export TORCH_CPP_LOG_LEVEL="${TORCH_CPP_LOG_LEVEL:-ERROR}"
# Safe path (Python 3.11): the current folder is not where modules are looked for.
export PYTHONPATH="$base${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$PYTHON" -m ssd "$verb" "$@"
