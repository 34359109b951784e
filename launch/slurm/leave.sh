# What a job does when its tasks have ended; train.sh sources it. Reads RUN_DIR, RETRIES and SLURM's variables.

# The newest complete checkpoint: progress that a further start cannot lose.
newest_checkpoint() {
  find "$RUN_DIR/checkpoints" -mindepth 2 -maxdepth 2 -path '*/step-*/manifest.json' 2>/dev/null | sort | tail -n 1 || true
}

# The node that the last verdict names as lost, stuck or faulty; empty if it names none.
bad_node() {
  local verdict
  verdict=$(find "$RUN_DIR/failures" -name verdict.json -newermt "@$STARTED" 2>/dev/null | sort | tail -n 1) || true
  [[ -n $verdict ]] || return 0
  python -c 'import json, sys
verdict = json.load(open(sys.argv[1]))
print(verdict["host"].split(".")[0] if verdict["kind"] in ("lost", "stuck", "faulty") else "")' "$verdict"
}

# exclude NODES: keep them away from the next starts of a job of several nodes, as those that were excluded before.
exclude() {
  local nodes=$1 before
  ((SLURM_NNODES > 1)) || return 0
  [[ -n $nodes ]] || return 0
  echo "excluded from the next start: $nodes"
  before=$(scontrol show job -o "$SLURM_JOB_ID" | grep -o 'ExcNodeList=[^ (]*' | cut -d= -f2) || true
  scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=${before:+$before,}$nodes"
}

# leave CODE [FILE]: exit with it, and put the job back into the queue first if another start can help. The file has the
# names of nodes that the next start should do without; else the last verdict may name one.
leave() {
  local code=$1 named=${2:-} newest failures=0 before=""
  case $code in
  0 | 2 | 3) exit "$code" ;; # done; wrong configuration or data; stopped by the guard
  75)
    echo "saved after a signal: back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit "$code"
    ;;
  esac
  newest=$(newest_checkpoint)
  mkdir -p "$RUN_DIR"
  if [[ -f $RUN_DIR/retries ]]; then read -r failures before <"$RUN_DIR/retries" || true; fi
  [[ $newest == "$before" ]] || failures=0 # the start that failed had saved something
  failures=$((failures + 1))
  echo "$failures $newest" >"$RUN_DIR/retries"
  if ((failures > RETRIES)); then
    echo "error: failed $failures times without a new checkpoint (exit code $code): not started again" >&2
    exit "$code"
  fi
  echo "failed (exit code $code), $failures of at most $RETRIES times without a new checkpoint: back into the queue"
  if [[ -f $named ]]; then named=$(<"$named"); else named=$(bad_node); fi
  trap '' TERM # with which the requeue ends this script; but SLURM takes the nodes only after it
  scontrol requeue "$SLURM_JOB_ID"
  exclude "$named"
  exit "$code"
}
