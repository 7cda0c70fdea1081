#!/usr/bin/env bash
# Regenerates the bindings, their argument files and PROVENANCE files from native/include/gatun.h and gatun_cuda.h.
# Needs jextract (on the PATH, or named by $JEXTRACT) and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
jextract="${JEXTRACT:-jextract}"
package=dev.gatun.bindings
sources=bindings/src/main/java
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# generate HEADER SUFFIX PATTERN [BORROWED...]: every name that the header itself declares, and none of those that it includes.
# Structs of another header that its own are made of are BORROWED: jextract must see them, and their classes are that header's.
# PATTERN: which of the generated files belong to the header.
generate() {
  local name=$1 suffix=$2 pattern=$3 header="native/include/$1" args="bindings/jextract$2.args"
  shift 3
  "$jextract" --dump-includes "$scratch/includes" "$header"
  sed -n "s|^\(--include-[a-z]* [A-Za-z0-9_]*\) *# header: .*/${name/./\\.}\$|\1|p" "$scratch/includes" \
    | grep -v -e ' GATUN_H$' -e ' GATUN_CUDA_H$' -e ' GATUN_API$' | LC_ALL=C sort > "$scratch/args"
  [ -s "$scratch/args" ] || { echo "regenerate: $header declares nothing" >&2; exit 1; }
  local struct
  for struct in "$@"; do echo "--include-struct $struct" >> "$scratch/args"; done
  cp "$scratch/args" "$args"
  rm -rf "$scratch/out"
  "$jextract" "@$args" --output "$scratch/out" --target-package "$package" "$header"
  (cd "$scratch/out" && find . -name "$pattern") | while read -r file; do cp "$scratch/out/$file" "$sources/$file"; done
  {
    echo "# Written by bindings/regenerate.sh; checked by DriftTest."
    "$jextract" --version 2>&1 | sed -n 's/^jextract /jextract=/p; s/^JDK version /jdk=/p; s/^LibClang version /libclang=/p'
    echo "source=https://github.com/openjdk/jextract (the version ends with the commit it was built from)"
    echo "command=jextract @$args --output $sources --target-package $package $header"
    echo "header=$header"
    echo "sha256=$(sha256sum "$header" | cut -d' ' -f1)"
  } > "bindings/PROVENANCE$suffix"
}

rm -f $sources/dev/gatun/bindings/gatun_*.java
generate gatun.h "" 'gatun_*.java'
generate gatun_cuda.h .cuda 'gatun_cuda_*.java' gatun_matrix
