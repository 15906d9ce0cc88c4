#!/usr/bin/env bash
# Installs what Fathom needs to build, on Debian 12 or later and Ubuntu 24.04 or later.
#   scripts/setup.sh           compiler, CMake, libraries
#   scripts/setup.sh --cuda    also CUDA's compiler (300 MB, from PyPI, into .cache/cuda) where there is none; the default
#                              where the machine has an NVIDIA GPU
#   scripts/setup.sh --tests   also what the tests need (GoogleTest, clang for the fuzzers, a Python environment)
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build ccache mold pkg-config libboost-dev libonig-dev libutf8proc-dev libfmt-dev
          libspdlog-dev nlohmann-json3-dev libcli11-dev curl python3 python3-venv)
if [ "${1:-}" = --tests ]; then
  packages+=(libgtest-dev nodejs npm)
  # One version everywhere: libFuzzer, and the judge of the format.
  packages+=(clang-16 libclang-rt-16-dev clang-format-16)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# A compiler or node from elsewhere serves as well as the distribution's.
still=()
for package in "${missing[@]}"; do
  case "$package" in
    nodejs) command -v node >/dev/null && continue ;;
    npm) command -v npm >/dev/null && continue ;;
  esac
  still+=("$package")
done
if [ "${#still[@]}" -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "setup: needs apt-get (Debian or Ubuntu); install by hand: ${still[*]}" >&2; exit 1; }
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "setup: installing ${still[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${still[@]}" >/dev/null
fi

# CUDA's compiler: the machine's own, or NVIDIA's wheels arranged as CMake expects a toolkit to be.
cuda=.cache/cuda/nvidia/cu13
if { [ "${1:-}" = --cuda ] || [ "${1:-}" = --tests ] || [ -e /dev/nvidiactl ]; } && ! command -v nvcc >/dev/null && [ ! -x $cuda/bin/nvcc ]; then
  echo "setup: fetching CUDA's compiler"
  python3 -m venv .cache/pip
  .cache/pip/bin/python -m pip install --quiet --disable-pip-version-check --target .cache/cuda \
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-culibos==13.0.85 nvidia-nvtx==13.0.85
  mkdir -p $cuda/targets/x86_64-linux
  ln -sfn lib $cuda/lib64
  ln -sfn ../../include $cuda/targets/x86_64-linux/include
  ln -sfn ../../lib $cuda/targets/x86_64-linux/lib
  ln -sfn libcudart.so.13 $cuda/lib/libcudart.so
fi

if [ "${1:-}" = --tests ]; then
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt \
    -r tests/requirements-clients.txt
  # Not fatal: where npm's registry cannot be reached, tests/clients/libraries.py says what it leaves out.
  npm --prefix tests/clients/node install --silent --no-package-lock --no-audit --no-fund ||
    echo "setup: npm could not install the packages of tests/clients/node"
fi
echo "setup: ready"
