#!/usr/bin/env bash
#SBATCH --job-name=exgra-stage2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# Stage 2 on a SLURM cluster. A job that is killed, for its time or for another, is queued again and goes on:
#
#   sbatch examples/scale/train_slurm.sh --config stage2 --set batch_size=8 \
#     --model runs/stage1 --data instruct.json --images images --output runs/stage2
set -euo pipefail

if [[ -z "${SLURM_JOB_ID:-}" ]]; then
  echo "train_slurm.sh: this must run in a job of SLURM; start it with sbatch. Elsewhere take train_torchrun.sh." >&2
  exit 2
fi

HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export HEAD NODES="$SLURM_NNODES" PROCESSES="${SLURM_GPUS_ON_NODE:-4}" RUN_ID="$SLURM_JOB_ID"
# Jobs that share the head must not share the port.
export PORT="$((20000 + SLURM_JOB_ID % 20000))"

# SLURM runs a copy of this script, so the other one is found from where the job was submitted.
exec srun bash "${SLURM_SUBMIT_DIR:?}/examples/scale/train_torchrun.sh" "$@"
