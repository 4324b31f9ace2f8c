#!/usr/bin/env bash
# A plain cold start inside a finished run of avar_tiny.sh: the same data, weights, seed and steps, alpha = beta = 0.
# Usage: OUT=outputs/tiny bash benchmarks/plain_sft.sh SEED
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SEED=$1
source recipes/stages.sh

stage plain_sft "$PYTHON" -m avar_rl.verl_plugin.sft recipes/config/tiny_sft --profile cpu \
  data.train_files="$OUT/data/sft_train.parquet" data.val_files="$OUT/data/sft_val.parquet" model.path="$OUT/base" \
  trainer.seed="$SEED" engine.seed="$SEED" trainer.default_local_dir="$OUT/checkpoints/plain_sft" \
  avar.guidance.alpha=0 avar.guidance.beta=0
stage plain_sft_model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/plain_sft" "$OUT/plain_sft" --base "$OUT/base"
stage plain_evaluation "$PYTHON" -m avar_rl.evaluation plain_sft="$OUT/plain_sft" \
  --data "$OUT/data/test.parquet" --out "$OUT/evaluation" --limit 240 --max-new-tokens 80 --seed "$SEED"
