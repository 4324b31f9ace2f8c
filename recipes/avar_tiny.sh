#!/usr/bin/env bash
# The whole AVAR recipe on a CPU, with a miniature Qwen2.5-VL (or another family) in a miniature world:
# data -> cold-start SFT with the attention-guided loss -> GRPO with the combined reward -> evaluation.
#
#   bash recipes/avar_tiny.sh                                   # about a quarter of an hour on two cores
#   SEED=1 NAME=tiny_1 bash recipes/avar_tiny.sh                # another seed
#   FAMILY=qwen3_vl NAME=tiny_qwen3 bash recipes/avar_tiny.sh   # another model family: qwen2_vl, qwen2_5_vl, qwen3_vl
#   bash recipes/avar_tiny.sh avar.rewards.visual=0             # arguments are overrides of the GRPO stage
#   DRY_RUN=1 bash recipes/avar_tiny.sh                         # print the checked configuration, run nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-tiny}
OUT=${OUT:-outputs/$NAME}
SEED=${SEED:-0}
FAMILY=${FAMILY:-qwen2_5_vl}
SFT_ROWS=${SFT_ROWS:-}      # other chat rows for the cold start: outputs/tiny_synthesis/data/train.parquet, for example
SFT_STEPS=${SFT_STEPS:-500}
SFT_ARGS=${SFT_ARGS:-}      # overrides of the SFT stage, for example SFT_ARGS="avar.guidance.alpha=0"
GRPO=${GRPO:-1}             # 0: no reinforcement; the cold start is evaluated
GRPO_STEPS=${GRPO_STEPS:-80}
DATA_ARGS=${DATA_ARGS:-}    # for example DATA_ARGS="--sft-rows 500"
EVAL_LIMIT=${EVAL_LIMIT:-240}
PROFILE=cpu
source recipes/stages.sh
SFT_ROWS=${SFT_ROWS:-$OUT/data/sft_train.parquet}

recipe_stages() {
  stage data "$PYTHON" -m data_tools.miniature.data --out "$OUT/data" --seed "$SEED" $DATA_ARGS
  stage base "$PYTHON" -m data_tools.miniature.model --out "$OUT/base" --data "$OUT/data" --family "$FAMILY" \
    --seed "$SEED"
  stage validate "$PYTHON" -m data_tools.validate "$OUT/data/rl_train.parquet" --model "$OUT/base" --max-prompt-length 128
  stage validate_sft "$PYTHON" -m data_tools.validate "$SFT_ROWS" --model "$OUT/base" --max-length 256

  stage sft "$PYTHON" -m avar_rl.verl_plugin.sft recipes/config/tiny_sft --profile cpu \
    data.train_files="$SFT_ROWS" data.val_files="$OUT/data/sft_val.parquet" model.path="$OUT/base" \
    trainer.total_training_steps="$SFT_STEPS" trainer.seed="$SEED" engine.seed="$SEED" \
    trainer.default_local_dir="$OUT/checkpoints/sft" $SFT_ARGS
  stage sft_model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/sft" "$OUT/sft" --base "$OUT/base"

  local models=(base="$OUT/base" sft="$OUT/sft")
  if [ "$GRPO" = 1 ]; then
    stage grpo "$PYTHON" -m avar_rl.verl_plugin.grpo recipes/config/tiny_grpo --profile cpu \
      data.train_files="$OUT/data/rl_train.parquet" data.val_files="$OUT/data/rl_val.parquet" \
      actor_rollout_ref.model.path="$OUT/sft" trainer.total_training_steps="$GRPO_STEPS" data.seed="$SEED" \
      actor_rollout_ref.rollout.seed="$SEED" trainer.default_local_dir="$OUT/checkpoints/grpo" \
      avar.rollouts.dir="$OUT/rollouts" "$@"
    stage model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/grpo" "$OUT/model" --base "$OUT/base"
    models+=(grpo="$OUT/model")
  fi

  stage evaluation "$PYTHON" -m avar_rl.evaluation "${models[@]}" --data "$OUT/data/test.parquet" \
    --out "$OUT/evaluation" --limit "$EVAL_LIMIT" --max-new-tokens 80 --seed "$SEED"
  stage summary "$PYTHON" -m avar_rl.evaluation.summary "$OUT"
}

run_recipe "$@"
