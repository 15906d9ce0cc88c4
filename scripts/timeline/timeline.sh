#!/usr/bin/env bash
# Where the decode steps of a program go, kernel by kernel, as its graphs are replayed (on a GPU):
#   scripts/timeline/timeline.sh build/release/fathom bench --model-path models/configs/deepseek_v2_lite \
#     --load-format dummy --batch 1 --input-len 512 --output-len 24 --repeat 1
# CUDA names the toolkit, whose CUPTI is needed; RECORD a library built before, where there is none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cuda=${CUDA:-/usr/local/cuda}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
record=${RECORD:-$folder/record.so}
if [ ! -e "$record" ]; then
  headers=$(dirname "$(find -L "$cuda" -name cupti.h -print -quit)")
  library=$(dirname "$(find -L "$cuda" -name 'libcupti.so' -print -quit)")
  ${CXX:-g++} -std=c++20 -O1 -shared -fPIC -I"$headers" -I"$cuda/include" "$here/record.cc" -o "$record" \
    -L"$library" -lcupti -Wl,-rpath,"$library"
fi
TIMELINE="$folder/kernels" CUDA_INJECTION64_PATH="$record" "$@"
for gpu in $(cut -d ' ' -f 1 "$folder/kernels" | sort -u); do
  echo "GPU $gpu"
  python3 "$here/show.py" "$folder/kernels" "$gpu"
done
