# Environment of a run on AMD GPUs. A value that is set already stays; safe to source twice.
# shellcheck shell=sh

# Images are decoded by threads of our own: none of them may start more.
: "${OMP_NUM_THREADS:=1}"
export OMP_NUM_THREADS
