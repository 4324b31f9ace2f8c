#!/usr/bin/env bash
# The miniature over several seeds, and beside each guided cold start a plain one (alpha = beta = 0) from the same data
# and the same weights. Ends with the table of docs/tiny.md: mean and spread. Finished stages are skipped on a second run.
#
#   bash benchmarks/tiny_seeds.sh            # seeds 0 1 2
#   SEEDS="3 4" bash benchmarks/tiny_seeds.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SEEDS=${SEEDS:-0 1 2}
PYTHON=${AVAR_VENV:-$PWD/.venv}/bin/python
runs=()
for seed in $SEEDS; do
  run=$PWD/outputs/tiny_$seed
  SEED=$seed NAME=tiny_$seed bash recipes/avar_tiny.sh
  OUT=$run PROFILE=cpu bash benchmarks/plain_sft.sh "$seed"
  runs+=("$run")
done
"$PYTHON" -m benchmarks.seeds "${runs[@]}"
