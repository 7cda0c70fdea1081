#!/usr/bin/env bash
# On a machine with a GPU: builds libgatun_cuda, runs every test of the GPU from Java, checks the kernels against PyTorch's arithmetic,
# looks for bad accesses and races on small cases, times the kernels through Java and beside PyTorch, and prints the table. What is not
# there (nvcc, Java, PyTorch, compute-sanitizer) is said and left out. A step that fails does not keep the next ones from running; they are named at
# the end, and the exit code is 1. Leaves cuda-java.json and cuda-bench.json in the current directory.
#
# Arguments: the rows of x to time, such as 1,16,64,512,4096, then the steps to run: all of java, pytorch, times and sanitizer unless some are
# named. Environment:
#   GATUN_CUDA_LIBRARY        a built libgatun_cuda.so, instead of building it
#   GATUN_CUDA_ARCHITECTURES  what to build it for; default 90a-real;90-virtual
#   GATUN_CARRIED             a folder that bench/cuda/carry.sh made, for a machine without Maven and JDK
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$(pwd)
rows=${1:-1,16,64,512,4096}
steps=" ${*:2} "
[ "$steps" != "  " ] || steps=" java pytorch times sanitizer "
build=$root/build/cuda
failed=()

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# wants STEP: whether it is to be run.
wants() { [[ $steps == *" $1 "* ]]; }

# try COMMAND...: runs it, and remembers that it failed.
try() { "$@" || failed+=("$*"); }

if [ -z "${GATUN_CUDA_LIBRARY:-}" ]; then
  say "building libgatun_cuda"
  command -v nvcc >/dev/null || { echo "no nvcc: name a built library in GATUN_CUDA_LIBRARY" >&2; exit 1; }
  cmake -S "$root/native" -B "$build" -DCMAKE_BUILD_TYPE=Release -DGATUN_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="${GATUN_CUDA_ARCHITECTURES:-90a-real;90-virtual}"
  cmake --build "$build" --target gatun_cuda_all --parallel "$(nproc)"
  ctest --test-dir "$build" --output-on-failure -L cuda
  GATUN_CUDA_LIBRARY=$(find "$build" -name libgatun_cuda.so -print -quit)
fi
export GATUN_CUDA_LIBRARY

# Sets java, flags and classes: those that were carried here, or what Maven builds.
flags=(--enable-native-access=ALL-UNNAMED --illegal-native-access=deny --add-modules=jdk.incubator.vector)
flags+=(-Dgatun.cuda.library.path="$GATUN_CUDA_LIBRARY" -Dgatun.test.gpu=required)
java=""
if [ -n "${GATUN_CARRIED:-}" ]; then
  java=$GATUN_CARRIED/runtime/bin/java
  flags+=(-Dgatun.library.path="$GATUN_CARRIED/native" -Dgatun.test.native=on)
  classes=$GATUN_CARRIED/classes:$root/java/src/test/resources:$(printf '%s:' "$GATUN_CARRIED"/lib/*.jar)
elif command -v mvn >/dev/null; then
  say "building the Java half"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$root/bench/cuda/carry.sh" "$scratch/carried"
  # shellcheck disable=SC2086 # several words
  GATUN_CARRIED=$scratch/carried "$root/bench/cuda/run.sh" "$rows" $steps
  exit
else
  say "no Maven and no GATUN_CARRIED: nothing is run from Java"
fi

# tests CLASS...: in Java; fails when one does.
tests() {
  local words=() class
  for class in "$@"; do words+=(--select-class "$class"); done
  mkdir -p "$root/java/target" # jqwik's notes
  (cd "$root/java" && "${prefix[@]}" "$java" "${flags[@]}" -cp "$classes" org.junit.platform.console.ConsoleLauncher execute \
    --disable-banner --details="${details:-summary}" "${words[@]}")
}
prefix=()

pytorch=no
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  pytorch=yes
else
  say "no python3 with PyTorch that sees the GPU: no peers"
fi

if [ -n "$java" ] && wants java; then
  say "tests of the GPU from Java"
  details=tree try tests dev.gatun.CudaDeviceTest
  try tests dev.gatun.kernel.CudaLoadTest dev.gatun.kernel.CudaBackendTest dev.gatun.kernel.CudaShapesTest dev.gatun.kernel.CudaSharedCallTest \
    dev.gatun.kernel.CudaActivationsTest dev.gatun.kernel.CudaGroupTest dev.gatun.GroupedLinearTest \
    dev.gatun.kernel.FusedLinearTest dev.gatun.LinearEpilogueTest dev.gatun.cli.CudaCommandsTest \
    dev.gatun.checkpoint.GoldenProductTest \
    dev.gatun.checkpoint.GoldenStaticTest dev.gatun.checkpoint.OutlierLinearTest
fi

if [ "$pytorch" = yes ] && wants pytorch; then
  say "kernels against PyTorch's arithmetic"
  try python3 "$root/bench/cuda/check.py"
fi

if wants times; then
  say "times"
  if [ -n "$java" ]; then
    try "$java" "${flags[@]}" -cp "$classes" dev.gatun.cli.Gatun bench cuda --rows "$rows" --json >"$here/cuda-java.json"
  fi
  if [ "$pytorch" = yes ]; then
    try python3 "$root/bench/cuda/bench.py" "$rows"
  fi
  if [ -n "$java" ]; then
    say "the table"
    try python3 "$root/bench/cuda/table.py" "$here/cuda-java.json" "$here/cuda-bench.json"
  fi
fi

if wants sanitizer; then
  if command -v compute-sanitizer >/dev/null; then
    # racecheck reports linear_held and linear_codes_wide: it seems to count only what the lane has done that arrives at a barrier for its
    # warp, not what the others wrote before __syncwarp (bench/RESULTS.md). Whatever else it reports is news.
    for tool in memcheck racecheck; do
      prefix=(compute-sanitizer --tool "$tool" --error-exitcode 1)
      if [ -n "$java" ]; then
        say "compute-sanitizer --tool $tool, from Java"
        try tests dev.gatun.kernel.CudaSmallTest
      fi
      if [ "$tool" = memcheck ] && [ "$pytorch" = yes ]; then
        say "compute-sanitizer --tool $tool, from Python"
        try "${prefix[@]}" python3 "$root/bench/cuda/check.py" small
      fi
      prefix=()
    done
  else
    say "no compute-sanitizer"
  fi
fi

say "done"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
