#!/usr/bin/env bash
# The whole AVAR recipe on a CPU, with a miniature Qwen2.5-VL (or another family) in a miniature world:
# data -> pre-training on captions and text -> cold-start SFT with the attention-guided loss -> GRPO with the combined
# reward -> evaluation.
#
#   bash recipes/avar_tiny.sh                                   # some 14 minutes on two cores
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
PRETRAIN_STEPS=${PRETRAIN_STEPS:-350}
SFT_STEPS=${SFT_STEPS:-250}
PRETRAIN_ARGS=${PRETRAIN_ARGS:-} # overrides of pre-training
SFT_ARGS=${SFT_ARGS:-}      # overrides of the SFT stage, for example SFT_ARGS="avar.guidance.alpha=0"
GRPO=${GRPO:-1}             # 0: no reinforcement; the cold start is evaluated
GRPO_STEPS=${GRPO_STEPS:-30}
DATA_ARGS=${DATA_ARGS:-}    # for example DATA_ARGS="--sft-rows 500"
EVAL_LIMIT=${EVAL_LIMIT:-240}
INTERVENE=${INTERVENE:-}    # models also answer with these: INTERVENE="weight:img=0.15,sys=0.05 logit:img=0.15,mode=logit"
PROBE=${PROBE:-0}           # rows over which attention and dependence on the image are measured (avar probe --blind)
PROFILE=cpu
source recipes/stages.sh
ASKED=(--data "$OUT/data/test.parquet" --out "$OUT/evaluation" --limit "$EVAL_LIMIT" --max-new-tokens 80 --seed "$SEED")
SFT_ROWS=${SFT_ROWS:-$OUT/data/sft_train.parquet}

recipe_stages() {
  stage data "$PYTHON" -m data_tools.miniature.data --out "$OUT/data" --seed "$SEED" $DATA_ARGS
  stage init "$PYTHON" -m data_tools.miniature.model --out "$OUT/init" --data "$OUT/data" --family "$FAMILY" \
    --seed "$SEED"
  stage validate "$PYTHON" -m data_tools.validate "$OUT/data/rl_train.parquet" --model "$OUT/init" --max-prompt-length 128

  # What a hub gives a real model: a base that reads images and text, and does not think about images yet.
  stage pretrain "$PYTHON" -m avar_rl.verl_plugin.sft recipes/config/tiny_pretrain --profile cpu \
    data.train_files="$OUT/data/pretrain.parquet" data.val_files="$OUT/data/sft_val.parquet" model.path="$OUT/init" \
    trainer.total_training_steps="$PRETRAIN_STEPS" trainer.seed="$SEED" engine.seed="$SEED" \
    trainer.default_local_dir="$OUT/checkpoints/pretrain" $PRETRAIN_ARGS
  stage base "$PYTHON" -m avar_rl.export "$OUT/checkpoints/pretrain" "$OUT/base" --base "$OUT/init"

  stage validate_sft "$PYTHON" -m data_tools.validate "$SFT_ROWS" --model "$OUT/init" --max-length 256
  stage sft "$PYTHON" -m avar_rl.verl_plugin.sft recipes/config/tiny_sft --profile cpu \
    data.train_files="$SFT_ROWS" data.val_files="$OUT/data/sft_val.parquet" model.path="$OUT/base" \
    trainer.total_training_steps="$SFT_STEPS" trainer.seed="$SEED" engine.seed="$SEED" \
    trainer.default_local_dir="$OUT/checkpoints/sft" $SFT_ARGS
  stage sft_model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/sft" "$OUT/sft" --base "$OUT/base"

  evaluated "" base="$OUT/base" sft="$OUT/sft"

  [ "$GRPO" = 0 ] || reinforced "$@"
  stage summary "$PYTHON" -m avar_rl.evaluation.summary "$OUT"
}

reinforced() {
  stage grpo "$PYTHON" -m avar_rl.verl_plugin.grpo recipes/config/tiny_grpo --profile cpu \
    data.train_files="$OUT/data/rl_train.parquet" data.val_files="$OUT/data/rl_val.parquet" \
    actor_rollout_ref.model.path="$OUT/sft" trainer.total_training_steps="$GRPO_STEPS" data.seed="$SEED" \
    actor_rollout_ref.rollout.seed="$SEED" trainer.default_local_dir="$OUT/checkpoints/grpo" \
    avar.rollouts.dir="$OUT/rollouts" "$@"
  stage model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/grpo" "$OUT/model" --base "$OUT/base"
  evaluated _grpo grpo="$OUT/model"
}

# evaluated SUFFIX NAME=MODEL…: models are evaluated as soon as they are there, so that runs of a study can share it.
evaluated() {
  local suffix=$1 how model
  shift
  stage "evaluation$suffix" "$PYTHON" -m avar_rl.evaluation "$@" "${ASKED[@]}"
  for how in $INTERVENE; do # NAME:INTERVENTION; the model is called by both names then
    stage "${how%%:*}$suffix" "$PYTHON" -m avar_rl.evaluation "${@/=/_${how%%:*}=}" "${ASKED[@]}" \
      --intervene "${how#*:}" --only-intervened
  done
  [ "$PROBE" = 0 ] || for model in "$@"; do
    stage "probe_${model%%=*}" "$PYTHON" -m avar_rl.probe "${model#*=}" "$OUT/data/sft_val.parquet" --limit "$PROBE" \
      --blind --json "$OUT/probe/${model%%=*}.json"
  done
}

run_recipe "$@"
