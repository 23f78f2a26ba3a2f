#!/usr/bin/env bash
# Stage 2 over the GPUs of one or several machines, by torchrun alone. Start it on every machine, in any order:
#
#   NODES=2 HEAD=10.0.0.1 examples/scale/train_torchrun.sh --config stage2 --set batch_size=8 \
#     --model runs/stage1 --data instruct.json --images images --output runs/stage2
#
# HEAD is one of the machines, OUTPUT a folder that all of them see. The product of machines, GPUs, batch_size and
# gradient_accumulation is the optimizer's batch: keep it at 64 (docs/training.md). Started again, it goes on.
set -euo pipefail

NODES="${NODES:-1}"
PROCESSES="${PROCESSES:-4}" # on each machine, one for each GPU
HEAD="${HEAD:-127.0.0.1}"   # where the machines meet
PORT="${PORT:-29500}"
RUN_ID="${RUN_ID:-exgra-stage2}"

if [[ $# -eq 0 ]]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
fi

# Without it torchrun gives each process one thread too, and says so every time.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

exec torchrun --nnodes "$NODES" --nproc-per-node "$PROCESSES" --max-restarts 0 \
  --rdzv-id "$RUN_ID" --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" \
  -m exgra_adapter train stage2 "$@" --resume
