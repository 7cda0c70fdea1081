/** Backends: who runs the operations, and how one weight matrix lies in memory. */
@NullMarked
package dev.gatun.kernel;

import org.jspecify.annotations.NullMarked;
