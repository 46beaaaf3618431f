# Environment of a run on the CPU: nothing to set. Threads are shared out by the launcher (OMP_NUM_THREADS, where unset).
# shellcheck shell=sh
