#!/usr/bin/env bash
# On a machine with a GPU, nvcc and a python3 that has PyTorch: builds libgatun_cuda, checks every kernel against PyTorch's arithmetic,
# once more under compute-sanitizer where that is there, and times the kernels beside PyTorch's. Prints the table and leaves
# cuda-bench.json in the current directory. Arguments: the rows of x to time, such as 1,16,64,512.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/cuda
cmake -S "$root/native" -B "$build" -DCMAKE_BUILD_TYPE=Release -DGATUN_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="${GATUN_CUDA_ARCHITECTURES:-90a-real;90-virtual}"
cmake --build "$build" --target gatun_cuda_all --parallel "$(nproc)"
ctest --test-dir "$build" --output-on-failure -L cuda
GATUN_CUDA_LIBRARY=$(find "$build" -name libgatun_cuda.so -print -quit)
export GATUN_CUDA_LIBRARY
python3 "$root/bench/cuda/check.py"
if command -v compute-sanitizer >/dev/null; then
  compute-sanitizer --tool memcheck --error-exitcode 1 python3 "$root/bench/cuda/check.py"
fi
python3 "$root/bench/cuda/bench.py" "$@"
