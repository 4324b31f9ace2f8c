#!/usr/bin/env bash
# Visual-anchored data for Qwen2.5-VL-7B's cold start, in the paper's configuration: Gemini describes, Qwen3-235B-A22B
# reasons, Qwen3-32B anchors, over five sources. The journal makes every call count once: run it again to go on.
#
#   GEMINI_API_KEY=… bash recipes/synthesize_qwen7b.sh                 # needs data/SOURCE/SPLIT.parquet
#   bash recipes/synthesize_qwen7b.sh budget.requests=200              # try it on a small budget first
#   RAY=auto bash recipes/synthesize_qwen7b.sh                         # the stages on a Ray cluster
#   DRY_RUN=1 bash recipes/synthesize_qwen7b.sh                        # print the checked recipe, ask nothing
#
# The sources are made with `python -m data_tools.convert SOURCE data/SOURCE` (docs/data.md). Arguments are
# overrides of recipes/config/synthesis/qwen7b.yaml, or of the file in RECIPE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-qwen7b_synthesis}
OUT=${OUT:-outputs/$NAME}
RECIPE=${RECIPE:-recipes/config/synthesis/qwen7b.yaml}
RAY=${RAY:-}
HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-0}
source recipes/stages.sh

if [ "${DRY_RUN:-0}" = 1 ]; then exec "$PYTHON" -m data_tools.synthesis "$RECIPE" "$@" --dry-run; fi
attended -- "$PYTHON" -m data_tools.synthesis "$RECIPE" "$@" --out "$OUT/data" ${RAY:+--ray "$RAY"}
echo "cold start from it: SFT_ROWS=$OUT/data/train.parquet bash recipes/avar_qwen7b.sh"
