#!/bin/bash
# Four nodes, one worker on each. Submit with: sbatch slurm.sh train.py
#SBATCH --job-name=tfopt
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
# After preemption or the time limit, Slurm starts the job again; `Resume` goes on where it was.
#SBATCH --requeue
# TERM a minute before the end, so that all workers save at the same batch.
#SBATCH --signal=TERM@60
set -euo pipefail

# One worker fails: all end. make_strategy() reads Slurm's own variables; no TF_CONFIG is needed.
srun --kill-on-bad-exit=1 python "$@"
