# Environment of a run on NVIDIA GPUs. A value that is set already stays; safe to source twice.
# shellcheck shell=sh

# Images are decoded by threads of our own: none of them may start more.
: "${OMP_NUM_THREADS:=1}"
# Say what went wrong between the GPUs, and nothing else.
: "${NCCL_DEBUG:=WARN}"
export OMP_NUM_THREADS NCCL_DEBUG
