# What every batch file of this folder does: look at the nodes, train, and go back into the queue if that can help.
# The batch files source it from the repository root; their words go to the training.

CONFIG=${CONFIG:-ds_configs/paper_128gpu.json}
RUN_DIR=${RUN_DIR:-runs/slurm-$SLURM_JOB_ID}
VENV=${VENV:-.venv}
SCRIPT=${SCRIPT:-launch/pretrain.py}
RETRIES=${RETRIES:-3}     # starts after failures without a new checkpoint
PREFLIGHT=${PREFLIGHT:-1} # 0: do not look at the nodes first
STARTED=$(date +%s)

[[ -f $SCRIPT ]] || { echo "error: no $SCRIPT in $PWD; call sbatch from the repository root" >&2; exit 2; }
[[ -x $VENV/bin/python ]] || { echo "error: no $VENV/bin/python; make install, or set VENV" >&2; exit 2; }
# shellcheck source=launch/slurm/leave.sh
source launch/slurm/leave.sh
PATH=$(realpath "$VENV")/bin:$PATH # ninja, which DeepSpeed calls at first use

NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\n' ' ')
MASTER_ADDR=127.0.0.1
((SLURM_NNODES == 1)) || MASTER_ADDR=${NODES%% *}
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000)) # below 32768, where the system begins to give ports to anybody
LOCAL_SIZE=$((SLURM_NTASKS / SLURM_NNODES))
export PATH MASTER_ADDR MASTER_PORT LOCAL_SIZE

# One Python a task. exec: the signal that SLURM sends to the task reaches Python itself. A task that leaves early gives
# the others a minute to end by themselves; killing at once would lose the exit code of a good save.
tasks() {
  # shellcheck disable=SC2016 # the task's shell expands these, not this one
  srun --wait=60 --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec python -u "$@"
  ' task "$@"
}

# Look at all nodes; leave if the training should not begin on them. Its words are those of the training.
preflight() {
  local code=0 folder=$RUN_DIR/preflight/$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
  # Whether the tasks end well does not matter: those that do not leave reports that say how far they came.
  tasks -m launch preflight --config "$CONFIG" --folder "$folder" "$@" || true
  python -m launch preflight --config "$CONFIG" --folder "$folder" --judge --nodes "$NODES" --ranks "$SLURM_NTASKS" || code=$?
  ((code == 0)) || leave "$code" "$folder/bad_nodes"
}

# Back in the queue, the job goes on from its last checkpoint, not from one that it was first started with.
((${SLURM_RESTART_COUNT:-0} == 0)) || set -- "$@" --resume auto
((PREFLIGHT == 0)) || preflight "$@"
code=0
tasks "$SCRIPT" --deepspeed_config "$CONFIG" --run_dir "$RUN_DIR" --resume auto "$@" || code=$?
leave "$code"
