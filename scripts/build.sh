#!/usr/bin/env bash
# Builds build/release/fathom.   scripts/build.sh [PRESET] [ninja arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true
# What scripts/setup.sh --cuda brought, where the machine has no CUDA compiler of its own.
fetched=$PWD/.cache/cuda/nvidia/cu13/bin/nvcc
if ! command -v nvcc >/dev/null && [ -x "$fetched" ]; then export CUDACXX=$fetched; fi
cmake --preset "$preset" >/dev/null
if [ "$preset" = release ] && [ $# = 0 ]; then set -- fathom; fi
# A compiler takes up to a gigabyte; do not start more of them than memory holds.
jobs=$(nproc)
memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
[ "$memory_gib" -ge "$jobs" ] || jobs=$((memory_gib > 0 ? memory_gib : 1))
exec cmake --build --preset "$preset" -j "$jobs" -- "$@"
