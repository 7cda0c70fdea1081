#!/usr/bin/env bash
# Makes a folder of all that bench/cuda/run.sh runs from Java, for a GPU machine that has no JDK and no Maven: a small runtime, the built
# classes and tests, libgatun, and the jars that they need. About 140 MB; `tar -I 'zstd -19 --long=27'` makes 45 MB of it.
# Usage: bench/cuda/carry.sh FOLDER. Needs Maven and a JDK 25, which JAVA_HOME names or is looked for in /usr/lib/jvm.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:?usage: carry.sh FOLDER}
jdk=""
for home in "${JAVA_HOME:-}" /usr/lib/jvm/*; do
  if grep -qs '^JAVA_VERSION="2[5-9]' "$home/release"; then jdk=$home; break; fi
done
[ -n "$jdk" ] || { echo "found no JDK 25, expected JAVA_HOME or one in /usr/lib/jvm" >&2; exit 1; }
platform=linux-$(uname -m)
launcher=1.14.4 # of the JUnit that the tests are compiled with

cd "$root"
mvn -B -q -pl bench -am -Dgatun.cuda=OFF test-compile dependency:build-classpath \
  -Dmdep.includeScope=test -Dmdep.outputFile=target/carried-classpath # in each module
mvn -B -q -N dependency:copy -Dartifact="org.junit.platform:junit-platform-console-standalone:$launcher" \
  -DoutputDirectory="$PWD/target/carried-launcher"
rm -rf "$out"
mkdir -p "$out/classes" "$out/lib" "$out/native"
"$jdk/bin/jlink" --add-modules \
  java.base,java.desktop,java.instrument,java.logging,java.management,java.net.http,java.xml,jdk.incubator.vector,jdk.management,jdk.unsupported \
  --strip-debug --no-man-pages --no-header-files --compress zip-0 --output "$out/runtime"
for module in bindings java bench; do
  cp -r "$module/target/classes/." "$out/classes/"
done
cp -r java/target/test-classes/. "$out/classes/"
rm -rf "$out/classes/golden" "$out/classes/module-info.class"
mv "$out/classes/META-INF/native/$platform/libgatun.so" "$out/native/"
commands=META-INF/services/dev.gatun.cli.Command
cat java/src/main/resources/$commands bench/src/main/resources/$commands >"$out/classes/$commands"
cat {bindings,java,bench}/target/carried-classpath | tr ':' '\n' | sort -u | grep '\.jar$' | while read -r jar; do
  case $jar in
    *onnxruntime*|*tokenizers*|*embeddings*|*xchart*) ;; # large, and not run here
    */junit-*) ;; # all of it is in the launcher's jar
    *) cp "$jar" "$out/lib/" ;;
  esac
done
cp target/carried-launcher/*.jar "$out/lib/"
