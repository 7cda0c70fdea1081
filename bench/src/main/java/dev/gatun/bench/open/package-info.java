/** {@code gatun bench open}: what opening a checkpoint larger than 4 GiB costs. */
@NullMarked
package dev.gatun.bench.open;

import org.jspecify.annotations.NullMarked;
