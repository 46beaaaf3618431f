# Environment of a run on the CPU. A value that is set already stays; safe to source twice.
# shellcheck shell=sh

# Threads sleep while they wait for each other. Spinning, OpenMP's default, costs a multiple of the whole run as soon as
# another program wants the cores (docs/experiments.md).
: "${OMP_WAIT_POLICY:=passive}"
export OMP_WAIT_POLICY
