# Environment of a run on Iluvatar CoreX (BI-V100). A value that is set already stays; safe to source twice.
# shellcheck shell=sh

# Where CoreX is installed: its compiler, ixsmi and libraries.
: "${COREX_HOME:=/usr/local/corex}"
case ":${PATH}:" in
    *":${COREX_HOME}/bin:"*) ;;
    *) PATH="${COREX_HOME}/bin:${PATH}" ;;
esac
case ":${LD_LIBRARY_PATH:-}:" in
    *":${COREX_HOME}/lib:"*) ;;
    *) LD_LIBRARY_PATH="${COREX_HOME}/lib${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}" ;;
esac
export COREX_HOME PATH LD_LIBRARY_PATH

# As the vendor's own training scripts set them: wait after a kernel's launch, copy up to this size with a kernel, the
# persistent batch-norm kernel, and no shared buffers between network channels.
: "${UMD_WAITAFTERLAUNCH:=1}"
: "${DRT_MEMCPYUSEKERNEL:=20000000000}"
: "${PT_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT:=1}"
: "${NCCL_NET_SHARED_BUFFERS:=0}"
export UMD_WAITAFTERLAUNCH DRT_MEMCPYUSEKERNEL PT_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT NCCL_NET_SHARED_BUFFERS

# Images are decoded by threads of our own: none of them may start more.
: "${OMP_NUM_THREADS:=1}"
export OMP_NUM_THREADS
