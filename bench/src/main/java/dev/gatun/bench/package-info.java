/** What the benchmarks share. */
@NullMarked
package dev.gatun.bench;

import org.jspecify.annotations.NullMarked;
