#!/usr/bin/env bash
# Regenerates the bindings, their argument file and PROVENANCE from native/include/gatun.h.
# Needs jextract (on the PATH, or named by $JEXTRACT) and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
jextract="${JEXTRACT:-jextract}"
header=native/include/gatun.h
package=dev.gatun.bindings
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# Every name that the header declares, and none of the system headers'.
"$jextract" --dump-includes "$scratch/includes" "$header"
sed -n 's|^\(--include-[a-z]* [A-Za-z0-9_]*\) *# header: .*/gatun\.h$|\1|p' "$scratch/includes" \
  | grep -v -e ' GATUN_H$' -e ' GATUN_API$' | LC_ALL=C sort > "$scratch/args"
[ -s "$scratch/args" ] || { echo "regenerate: $header declares nothing" >&2; exit 1; }

command=(@bindings/jextract.args --output bindings/src/main/java --target-package "$package" "$header")
cp "$scratch/args" bindings/jextract.args
rm -f bindings/src/main/java/dev/gatun/bindings/gatun_*.java
"$jextract" "${command[@]}"

{
  echo "# Written by bindings/regenerate.sh; checked by DriftTest."
  "$jextract" --version 2>&1 | sed -n 's/^jextract /jextract=/p; s/^JDK version /jdk=/p; s/^LibClang version /libclang=/p'
  echo "source=https://github.com/openjdk/jextract (the version ends with the commit it was built from)"
  echo "command=jextract ${command[*]}"
  echo "header=$header"
  echo "sha256=$(sha256sum "$header" | cut -d' ' -f1)"
} > bindings/PROVENANCE
