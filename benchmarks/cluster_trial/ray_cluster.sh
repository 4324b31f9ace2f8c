# Sourced by the trials: a Ray cluster on simulated nodes (nodes.sh), closed by a token, as docs/cluster.md says it.

RAY=${AVAR_VENV:-$PWD/.venv}/bin/ray
HEAD_ADDRESS=$(address_of node1):6379
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$NODES_FOLDER/ray_token RAY_USAGE_STATS_ENABLED=0
export RAY_worker_register_timeout_seconds=300 # the simulated nodes share few processors

# One device a node, as Ray counts them; there is none behind it.
NODE=(--num-cpus=16 --object-store-memory=500000000 --disable-usage-stats)

start_head() { # start_head [DEVICES]
  [ -s "$RAY_AUTH_TOKEN_PATH" ] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
  on node1 "$RAY" start --head --node-ip-address="$(address_of node1)" --port=6379 --dashboard-host=0.0.0.0 \
    --num-gpus="${1:-1}" "${NODE[@]}" >"$NODES_FOLDER/node1/ray.log" 2>&1 || { cat "$NODES_FOLDER/node1/ray.log" >&2; return 1; }
}

join_head() { # join_head NODE
  on "$1" "$RAY" start --address="$HEAD_ADDRESS" --node-ip-address="$(address_of "$1")" --num-gpus=1 "${NODE[@]}" \
    >"$NODES_FOLDER/$1/ray.log" 2>&1 || { cat "$NODES_FOLDER/$1/ray.log" >&2; return 1; }
}

stop_head() { on node1 "$RAY" stop >/dev/null; }

DASHBOARD=http://$(address_of node1):8265

# submit NAME COMMAND…: as a job, from outside the nodes. A job that is stopped has ten minutes for its end.
submit() {
  local name=$1
  shift
  "$RAY" job submit --address="$DASHBOARD" --no-wait --submission-id="$name" \
    --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}}' -- "$@"
}

ask_dashboard() { curl --silent --fail --header "Authorization: Bearer $(cat "$RAY_AUTH_TOKEN_PATH")" "$DASHBOARD/api/jobs/$1"; }
job_has_ended() { ask_dashboard "$1" | grep -qE '"status": *"(SUCCEEDED|FAILED|STOPPED)"'; }
how_job_ended() { ask_dashboard "$1" | grep -oE '"(status|driver_exit_code)": *[^,}]+' | xargs; }
job_log() { ask_dashboard "$1/logs" | "${RAY%/ray}/python" -c 'import json, sys; print(json.load(sys.stdin)["logs"])'; }
