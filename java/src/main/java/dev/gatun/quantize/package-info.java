/**
 * Whole checkpoints from floats to codes and back: {@link dev.gatun.quantize.Quantizer} and its
 * inverse.
 */
@NullMarked
package dev.gatun.quantize;

import org.jspecify.annotations.NullMarked;
