/**
 * ONNX models as far as they are needed here: reading weights, and writing models of one node for
 * the peers.
 */
@NullMarked
package dev.gatun.bench.onnx;

import org.jspecify.annotations.NullMarked;
