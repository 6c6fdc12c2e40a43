#!/usr/bin/env bash
# A Python environment with the given packages. usage: venv.sh DIR PACKAGE...
set -euo pipefail
dir=$1
shift
command -v python3 >/dev/null || { echo "venv.sh: python3 is needed" >&2; exit 1; }
[[ -x $dir/bin/pip ]] || {
    python3 -m venv "$dir" 2>/dev/null || {
        echo "venv.sh: installing from Debian's packages: python3-venv"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
        python3 -m venv "$dir"
    }
}
for package in "$@"; do
    "$dir/bin/pip" show -q "$package" >/dev/null 2>&1 || {
        echo "venv.sh: installing from PyPI: $package"
        "$dir/bin/pip" install -q --disable-pip-version-check "$package"
    }
done
