# Sourced by the GPU recipes, which set their defaults before: the stages, from data to evaluation. docs/gpu_recipes.md has
# a table of the knobs and of what fits which card.

SFT_DATA=${SFT_DATA:-data/sft.parquet}
SFT_ROWS=${SFT_ROWS:-} # chat rows that are ready, instead of SFT_DATA
RL_DATA=${RL_DATA:-data/rl.parquet}
SFT_COLUMNS=${SFT_COLUMNS:---question-column question --answer-column answer --images-column images --response-column response}
RL_COLUMNS=${RL_COLUMNS:---question-column question --answer-column answer --images-column images}
NNODES=${NNODES:-1}
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}  # GPUs that share a rollout engine
ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.6}  # share of a card that the rollout engine takes while the actor is on the host
MAX_PROMPT=${MAX_PROMPT:-2048}         # tokens of a question, its images included
MAX_RESPONSE=${MAX_RESPONSE:-2048}
MIN_PIXELS=${MIN_PIXELS:-}             # of an image, in all stages; "": the model's own
SYSTEM_PROMPT=${SYSTEM_PROMPT:-You are a helpful assistant.} # where a question has none, nor the model's chat template
LORA_RANK=${LORA_RANK:-0}
LORA_ALPHA=${LORA_ALPHA:-$((2 * LORA_RANK))}
OFFLOAD=${OFFLOAD:-0}                  # 1: parameters, gradients and optimizer stay on the host while training, too
OVERLONG=${OVERLONG:-error}
SEED=${SEED:-}                         # of the order of the data, dropout, sampling; "": verl's defaults
SFT_ARGS=${SFT_ARGS:-}                 # overrides of the SFT stage; the recipe's arguments are those of the GRPO stage
GRPO=${GRPO:-1}                        # 0: no reinforcement; the cold start is evaluated
EVAL_ARGS=${EVAL_ARGS:-}
BENCHMARKS=${BENCHMARKS:-}             # asked at the end: all, or names such as mathvista,mmmu; "": none
BENCHMARK_ARGS=${BENCHMARK_ARGS:-}     # for example BENCHMARK_ARGS="--benchmark-data copies --prompts ours --vas"
STAGE_LIMIT=${STAGE_LIMIT:-14d}
HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-0}
export GPU_MEMORY_GB
source recipes/stages.sh
TEST_DATA=${TEST_DATA:-$OUT/data/rl/test.parquet}
BASE=$OUT/base # MODEL with the limits of pixels; every later stage reads it

larger() { echo $(($1 > $2 ? $1 : $2)); }

# verl packs as many sequences into a micro-batch as its token limit holds; one over the limit would stop it.
SEQUENCE=$((MAX_PROMPT + MAX_RESPONSE))
SFT_TUNING=(data.max_length="$MAX_SFT" data.max_token_len_per_gpu="$(larger "$TOKENS_PER_GPU" "$MAX_SFT")")
GRPO_TUNING=(data.max_prompt_length="$MAX_PROMPT" data.max_response_length="$MAX_RESPONSE"
  actor_rollout_ref.rollout.max_model_len="$SEQUENCE"
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$(larger "$TOKENS_PER_GPU" "$SEQUENCE")"
  actor_rollout_ref.rollout.tensor_model_parallel_size="$TENSOR_PARALLEL"
  actor_rollout_ref.rollout.gpu_memory_utilization="$ROLLOUT_MEMORY")
if [ "$LORA_RANK" != 0 ]; then
  [ "$PROFILE" = gpu ] && DTYPE=bf16 || DTYPE=fp32
  SFT_TUNING+=(+lora=sft engine.model_dtype=$DTYPE model.lora_rank="$LORA_RANK" model.lora_alpha="$LORA_ALPHA")
  GRPO_TUNING+=(+lora=grpo actor_rollout_ref.actor.fsdp_config.model_dtype=$DTYPE
    actor_rollout_ref.model.lora_rank="$LORA_RANK" actor_rollout_ref.model.lora_alpha="$LORA_ALPHA")
fi
if [ -n "$SEED" ]; then
  SFT_TUNING+=(trainer.seed="$SEED" engine.seed="$SEED")
  GRPO_TUNING+=(data.seed="$SEED" actor_rollout_ref.rollout.seed="$SEED")
fi
if [ "$OFFLOAD" = 1 ]; then
  SFT_TUNING+=(engine.offload_policy=true)
  GRPO_TUNING+=(actor_rollout_ref.actor.fsdp_config.offload_policy=true)
fi

recipe_stages() {
  local rows=${SFT_ROWS:-$OUT/data/sft/sft_train.parquet}
  stage base "$PYTHON" -m avar_rl.base_model "$MODEL" "$BASE" ${MIN_PIXELS:+--min-pixels "$MIN_PIXELS"} \
    ${MAX_PIXELS:+--max-pixels "$MAX_PIXELS"} --system-prompt "$SYSTEM_PROMPT"
  if [ -z "$SFT_ROWS" ]; then
    stage sft_data "$PYTHON" -m data_tools.prepare "$SFT_DATA" "$OUT/data/sft" $SFT_COLUMNS
  fi
  # The cold start stops at a row that is too long; here every one is named before anything is trained.
  stage validate_sft "$PYTHON" -m data_tools.validate "$rows" --model "$BASE" --max-length "$MAX_SFT"
  stage rl_data "$PYTHON" -m data_tools.prepare "$RL_DATA" "$OUT/data/rl" $RL_COLUMNS
  # Prompts over the limit are counted and reported; OVERLONG=drop leaves them out, OVERLONG=error stops here.
  stage validate "$PYTHON" -m data_tools.validate "$OUT/data/rl/rl_train.parquet" --model "$BASE" \
    --max-prompt-length "$MAX_PROMPT" --overlong "$OVERLONG" --out "$OUT/data/rl/rl_checked.parquet"

  stage sft "$PYTHON" -m avar_rl.verl_plugin.sft "recipes/config/${CONFIG}_sft" --profile "$PROFILE" \
    profile="${PROFILE}_sft" data.train_files="$rows" model.path="$BASE" \
    trainer.n_gpus_per_node="$NGPUS" trainer.nnodes="$NNODES" trainer.default_local_dir="$OUT/checkpoints/sft" \
    "${SFT_TUNING[@]}" $SFT_ARGS
  stage sft_model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/sft" "$OUT/sft" --base "$BASE"

  local models=(base="$BASE" sft="$OUT/sft")
  if [ "$GRPO" = 1 ]; then
    stage grpo "$PYTHON" -m avar_rl.verl_plugin.grpo "recipes/config/${CONFIG}_grpo" --profile "$PROFILE" \
      profile="${PROFILE}_grpo" data.train_files="$OUT/data/rl/rl_checked.parquet" \
      data.val_files="$OUT/data/rl/rl_val.parquet" actor_rollout_ref.model.path="$OUT/sft" \
      trainer.n_gpus_per_node="$NGPUS" trainer.nnodes="$NNODES" trainer.default_local_dir="$OUT/checkpoints/grpo" \
      avar.rollouts.dir="$OUT/rollouts" "${GRPO_TUNING[@]}" "$@"
    stage model "$PYTHON" -m avar_rl.export "$OUT/checkpoints/grpo" "$OUT/model" --base "$BASE"
    models+=(grpo="$OUT/model")
  fi

  stage evaluation "$PYTHON" -m avar_rl.evaluation "${models[@]}" \
    --data "$TEST_DATA" --out "$OUT/evaluation" --max-new-tokens "$MAX_RESPONSE" \
    --tensor-parallel "$TENSOR_PARALLEL" ${SEED:+--seed "$SEED"} $EVAL_ARGS
  stage summary "$PYTHON" -m avar_rl.evaluation.summary "$OUT"
  if [ -n "$BENCHMARKS" ]; then
    stage_again benchmarks "$PYTHON" -m avar_rl.evaluation "${models[@]}" \
      --benchmarks "$BENCHMARKS" --out "$OUT/benchmarks" --tensor-parallel "$TENSOR_PARALLEL" \
      --replicas "$(larger 1 $((NGPUS * NNODES / TENSOR_PARALLEL)))" $BENCHMARK_ARGS
  fi
}

run_recipe "$@"
