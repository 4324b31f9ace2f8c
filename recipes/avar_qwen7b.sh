#!/usr/bin/env bash
# The AVAR recipe for Qwen2.5-VL-7B on GPUs: the same stages as avar_tiny.sh, eight GPUs by default.
#
#   SFT_DATA=sft.parquet RL_DATA=rl.parquet bash recipes/avar_qwen7b.sh
#   NNODES=2 RAY_ADDRESS=auto … bash recipes/avar_qwen7b.sh     # on the head of a running Ray cluster
#   DRY_RUN=1 bash recipes/avar_qwen7b.sh                       # print the checked configuration, run nothing
#
# SFT_DATA and RL_DATA are parquet or JSONL files, or hub names; *_COLUMNS say which columns to read. The RL data also
# gives the test split, unless TEST_DATA names a file of RL rows. SFT_ROWS names chat rows that are ready, those of
# synthesize_qwen7b.sh for example, to be used instead of SFT_DATA.
# Arguments are overrides of the GRPO stage. On several nodes the SFT stage is run on each (see docs/qwen7b.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-qwen7b}
OUT=${OUT:-outputs/$NAME}
MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}
SFT_DATA=${SFT_DATA:-data/sft.parquet}
SFT_ROWS=${SFT_ROWS:-}
RL_DATA=${RL_DATA:-data/rl.parquet}
SFT_COLUMNS=${SFT_COLUMNS:---question-column question --answer-column answer --images-column images --response-column response}
RL_COLUMNS=${RL_COLUMNS:---question-column question --answer-column answer --images-column images}
NGPUS=${NGPUS:-8}
NNODES=${NNODES:-1}
TENSOR_PARALLEL=${TENSOR_PARALLEL:-2} # GPUs that share a rollout engine
MAX_PROMPT=${MAX_PROMPT:-2048}
MAX_RESPONSE=${MAX_RESPONSE:-2048}
MAX_SFT=${MAX_SFT:-8192} # of a whole conversation of the cold start
OVERLONG=${OVERLONG:-error}
SFT_ARGS=${SFT_ARGS:-}      # overrides of the SFT stage
EVAL_ARGS=${EVAL_ARGS:-}
STAGE_LIMIT=${STAGE_LIMIT:-14d}
HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-0}
source recipes/stages.sh
TEST_DATA=${TEST_DATA:-$OUT/data/rl/test.parquet}

if [ -z "$SFT_ROWS" ]; then
  SFT_ROWS=$OUT/data/sft/sft_train.parquet
  stage sft_data "$PYTHON" -m data_tools.prepare "$SFT_DATA" "$OUT/data/sft" $SFT_COLUMNS
fi
# The cold start stops at a row that is too long; here every one is named before anything is trained.
stage validate_sft "$PYTHON" -m data_tools.validate "$SFT_ROWS" --model "$MODEL" --max-length "$MAX_SFT"
stage rl_data "$PYTHON" -m data_tools.prepare "$RL_DATA" "$OUT/data/rl" $RL_COLUMNS
# Prompts over the limit are counted and reported; OVERLONG=drop leaves them out, OVERLONG=error stops here.
stage validate "$PYTHON" -m data_tools.validate "$OUT/data/rl/rl_train.parquet" --model "$MODEL" \
  --max-prompt-length "$MAX_PROMPT" --overlong "$OVERLONG" --out "$OUT/data/rl/rl_checked.parquet"

stage sft "$PYTHON" -m avar_rl.verl_plugin.sft recipes/config/qwen7b_sft --profile "$PROFILE" profile="${PROFILE}_sft" \
  data.train_files="$SFT_ROWS" data.max_length="$MAX_SFT" model.path="$MODEL" \
  trainer.n_gpus_per_node="$NGPUS" trainer.nnodes="$NNODES" trainer.default_local_dir="$OUT/checkpoints/sft" $SFT_ARGS
stage sft_model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/sft" "$OUT/sft" --base "$MODEL"

stage grpo "$PYTHON" -m avar_rl.verl_plugin.grpo recipes/config/qwen7b_grpo --profile "$PROFILE" profile="${PROFILE}_grpo" \
  data.train_files="$OUT/data/rl/rl_checked.parquet" data.val_files="$OUT/data/rl/rl_val.parquet" \
  data.max_prompt_length="$MAX_PROMPT" data.max_response_length="$MAX_RESPONSE" actor_rollout_ref.model.path="$OUT/sft" \
  actor_rollout_ref.rollout.tensor_model_parallel_size="$TENSOR_PARALLEL" \
  trainer.n_gpus_per_node="$NGPUS" trainer.nnodes="$NNODES" trainer.default_local_dir="$OUT/checkpoints/grpo" \
  avar.rollouts.dir="$OUT/rollouts" "$@"
stage model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/grpo" "$OUT/model" --base "$MODEL"

stage evaluation "$PYTHON" -m avar_rl.evaluation base="$MODEL" sft="$OUT/sft" grpo="$OUT/model" \
  --data "$TEST_DATA" --out "$OUT/evaluation" --max-new-tokens "$MAX_RESPONSE" \
  --tensor-parallel "$TENSOR_PARALLEL" $EVAL_ARGS
stage summary "$PYTHON" -m avar_rl.evaluation.summary "$OUT"
