#!/usr/bin/env bash
# The GPU check on a machine with a card, torch 2.11, Triton 3.6 and little else.
#
#   bash benchmarks/gpu_check.sh OUT.json [arguments of benchmarks.gpu_check]   install the wheels, run the check
#   bash benchmarks/gpu_check.sh wheels DIR                                     fetch the wheels, where pip has an index
#
#   PYTHON=python3         the Python that has torch (3.12, or 3.11); the wheels are fetched for it
#   WHEELS=DIR             install from this folder, for a machine without a network
#   SITE=DIR               where the wheels are installed, beside what Python has (default: a temporary folder)
#   REQUIREMENTS=FILE      requirements/gpu_check.txt (default), or requirements/gpu_check_bare.txt where numpy and the
#                          like are missing as well
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
REQUIREMENTS=${REQUIREMENTS:-requirements/gpu_check.txt}

die() { echo "gpu_check.sh: $*" >&2; exit 2; }

[ $# -ge 1 ] || die "name a file for the results: bash benchmarks/gpu_check.sh OUT.json (or: wheels DIR)"
if [ "$1" = wheels ]; then
  [ $# -eq 2 ] || die "name the folder of the wheels: bash benchmarks/gpu_check.sh wheels DIR"
  exec "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$2" --requirement "$REQUIREMENTS"
fi
"$PYTHON" -c 'import torch' 2>/dev/null || die "$PYTHON has no torch; name one that has it in PYTHON."
if [ -z "${SITE:-}" ]; then
  SITE=$(mktemp -d)
  trap 'rm -rf "$SITE"' EXIT
fi
offline=()
[ -z "${WHEELS:-}" ] || offline=(--no-index --find-links "$WHEELS")
"$PYTHON" -m pip install --quiet --no-deps --upgrade --target "$SITE" "${offline[@]}" --requirement "$REQUIREMENTS" ||
  die "the wheels of $REQUIREMENTS could not be installed; bash benchmarks/gpu_check.sh wheels DIR fetches them elsewhere."
out=$1
shift
PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" -m benchmarks.gpu_check --out "$out" "$@"
