#!/usr/bin/env bash
# The miniature recipe on a cluster of two simulated nodes: with its own address, host name, processes and shared memory
# each, by Linux namespaces on this machine. Real Ray, real Slurm. Needs root, and 12 GB of memory; docs/cluster.md has
# what it printed.
#
#   bash benchmarks/cluster_trial.sh ray FOLDER     two Ray nodes: as a job, which loses the second node in GRPO; on the one
#                                                   that is left, stopped; on both again, from the head, to the end
#   bash benchmarks/cluster_trial.sh ray_sft FOLDER the same two nodes, of which the cold start loses the second: its plug is
#                                                   pulled, then, resumed, its processes are killed; resumed to its end
#   bash benchmarks/cluster_trial.sh slurm FOLDER   Slurm (apt-get install slurmctld slurmd slurm-client munge): the job is
#                                                   preempted in the cold start and in GRPO, goes back to the queue each
#                                                   time, resumes, and ends
#
# FOLDER is made; run it again with another one. AVAR_VENV as for recipes/setup.sh, which is to have been run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WHAT=${1:?ray, ray_sft or slurm} FOLDER=$(realpath -m "${2:?a folder for the trial}")
[ ! -e "$FOLDER" ] || { echo "$FOLDER is there: name another" >&2; exit 2; }
mkdir -p "$FOLDER"
source benchmarks/cluster_trial/nodes.sh
NODES_FOLDER=$FOLDER/nodes
trap 'stop_slurm; remove_nodes' EXIT
trap 'exit 143' TERM
stop_slurm() { :; }

OUT=${OUT:-$FOLDER/run} # of an earlier trial: what that has finished is not done again
KNOBS=(OUT="$OUT" AVAR_VENV="${AVAR_VENV:-$PWD/.venv}" NNODES=2 EVAL_LIMIT=8
  DATA_ARGS="--pretrain-rows 100 --sft-rows 200 --rl-rows 32"
  PRETRAIN_STEPS=4 PRETRAIN_ARGS="data.train_batch_size=8 data.micro_batch_size_per_gpu=4"
  SFT_STEPS="${SFT_STEPS:-12}" GRPO_STEPS="${GRPO_STEPS:-8}"
  SFT_ARGS="data.train_batch_size=8 data.micro_batch_size_per_gpu=4 trainer.save_freq=1 trainer.n_gpus_per_node=1
    trainer.nnodes=2")
GRPO=(data.train_batch_size=4 actor_rollout_ref.actor.ppo_mini_batch_size=4 actor_rollout_ref.rollout.n=2
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4 trainer.nnodes=2 trainer.save_freq=1
  avar.guard.step_minutes=15 actor_rollout_ref.rollout.agent.num_workers=1)

said() { echo "$(date +%T) $*"; }

# wait_for SECONDS WHAT COMMAND…: until COMMAND succeeds.
wait_for() {
  local left=$1 what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    sleep 1
    [ $((left -= 1)) -gt 0 ] || { said "gave up waiting for: $what"; return 1; }
  done
  said "$what"
}

tracked() { cat "$OUT/checkpoints/$1/latest_checkpointed_iteration.txt"; }     # STAGE
has_saved() { [ "$(tracked "$1")" -ge "$2" ]; }                               # STAGE STEP
has_saved_or_ended() { has_saved "$2" "$3" || job_has_ended "$1"; } # JOB STAGE STEP
is_done_or_ended() { [ -f "$OUT/stages/$2" ] || job_has_ended "$1"; } # JOB STAGE
last_words() { grep -v '^ *$' "$1" | tail -n "${2:-2}" | sed 's/^/         | /'; } # FILE [LINES]
curves() { # STAGE…: the steps of these trainings, in the order in which they were logged
  local stage
  for stage in "$@"; do
    said "$stage's steps: $(grep -hE '"(train/loss|actor/pg_loss)"' "$OUT/logs/$stage.metrics.jsonl" | grep -oE '^."step": *[0-9]+' |
      grep -oE '[0-9]+' | xargs)"
  done
}

# on_head LOG [KNOB=…] ARGUMENT…: the recipe on the cluster, its command run on the head. Says how it ended.
on_head() {
  local log=$FOLDER/$1 status=0
  shift
  on node1 env RAY_ADDRESS="$HEAD_ADDRESS" "${KNOBS[@]}" bash recipes/avar_tiny.sh "${GRPO[@]}" "$@" >"$log" 2>&1 || status=$?
  said "from the head: status $status; its last words:"
  last_words "$log"
}

# as_job NAME ARGUMENT…: the recipe as a job of the cluster.
as_job() {
  local name=$1
  shift
  submit "$name" env "${KNOBS[@]}" bash "$PWD/recipes/avar_tiny.sh" "${GRPO[@]}" "$@" >"$FOLDER/$name.submitted"
  said "submitted as job $name"
}

job_is_over() { # NAME
  wait_for 300 "job $1 is over" job_has_ended "$1"
  job_log "$1" >"$FOLDER/$1.log"
  said "$(how_job_ended "$1"); its last words:"
  last_words "$FOLDER/$1.log"
}

trial_ray() {
  source benchmarks/cluster_trial/ray_cluster.sh
  local step
  make_nodes "$NODES_FOLDER" node1 node2
  start_head && join_head node2
  said "two Ray nodes are up"
  as_job first
  wait_for 900 "GRPO has saved step 1" has_saved_or_ended first grpo 1
  pull_plug node2
  said "node2's plug is pulled"
  job_is_over first

  on_head refused.log trainer.nnodes=1
  stop_head && start_head 2
  step=$(tracked grpo)
  said "a cluster of one node with two devices; GRPO stands at step $step"
  as_job second trainer.nnodes=1 trainer.n_gpus_per_node=2
  wait_for 900 "GRPO has saved step $((step + 1))" has_saved_or_ended second grpo $((step + 1))
  "$RAY" job stop --address="$DASHBOARD" --no-wait second >/dev/null
  job_is_over second

  stop_head && start_head && plug_in node2 && join_head node2
  said "two Ray nodes again; GRPO stands at step $(tracked grpo)"
  on_head third.log
  curves sft grpo
}

trial_ray_sft() {
  source benchmarks/cluster_trial/ray_cluster.sh
  make_nodes "$NODES_FOLDER" node1 node2
  start_head && join_head node2
  said "two Ray nodes are up"
  sft_loses_node2 first pull_plug
  plug_in node2 && join_head node2
  sft_loses_node2 second kill_processes
  plug_in node2 && join_head node2
  as_job third
  wait_for 900 "the cold start's model is exported" is_done_or_ended third sft_model
  "$RAY" job stop --address="$DASHBOARD" --no-wait third >/dev/null
  job_is_over third
  curves sft
}

sft_loses_node2() { # JOB HOW: the recipe as a job, whose second node is lost once two more steps are saved
  local step
  step=$(tracked sft 2>/dev/null || echo 0)
  as_job "$1"
  wait_for 900 "the cold start has saved step $((step + 2))" has_saved_or_ended "$1" sft $((step + 2))
  "$2" node2
  said "$2 node2; the cold start stands at step $(tracked sft)"
  job_is_over "$1"
}

trial_slurm() {
  source benchmarks/cluster_trial/slurm_cluster.sh
  make_nodes "$NODES_FOLDER" node1 node2
  start_slurm node1 node2
  said "Slurm: $(sinfo -h -p low -o '%D nodes %T')"
  local environment=("${KNOBS[@]}" RAY_worker_register_timeout_seconds=300
    RAY_START="--num-gpus=1 --num-cpus=16 --object-store-memory=500000000")
  JOB=$(env "${environment[@]}" sbatch --parsable --partition=low --output="$FOLDER/job.log" \
    recipes/cluster/slurm.sh recipes/avar_tiny.sh "${GRPO[@]}")
  said "submitted as job $JOB"
  is_preempted sft 1
  is_preempted grpo 2
  wait_for 1500 "the recipe's job is over" is_over
  said "$(scontrol show job "$JOB" | grep -oE '(JobState|Restarts|ExitCode)=[^ ]+' | xargs); its last words:"
  last_words "$FOLDER/job.log"
  curves sft grpo
}

is_preempted() { # STAGE TIMES: the recipe's job, once the stage has saved step 2; goes on at once
  wait_for 1500 "$1 has saved step 2" has_saved_or_is_over "$1" 2
  sbatch --partition=high --nodes=2 --exclusive --output="$FOLDER/high.log" --wrap "sleep 2" >/dev/null
  said "a job of higher priority comes and takes both nodes"
  wait_for 180 "the recipe's job is in the queue again" is_queued_again "$2"
  last_words "$FOLDER/job.log" 6
  scontrol update JobId="$JOB" StartTime=now # Slurm would wait for two minutes
}

has_saved_or_is_over() { has_saved "$@" || is_over; } # STAGE STEP
is_queued_again() { scontrol show job "$JOB" | tr '\n' ' ' | grep -q "JobState=PENDING .*Restarts=$1 "; } # TIMES
is_over() { scontrol show job "$JOB" | grep -qE 'JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT)'; }

"trial_$WHAT"
