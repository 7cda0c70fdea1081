/** {@code gatun bench cuda}: kernels on a GPU, and what a call from Java costs there. */
@NullMarked
package dev.gatun.bench.cuda;

import org.jspecify.annotations.NullMarked;
