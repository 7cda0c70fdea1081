/** {@code gatun demo}: a real model, quantized and run with every linear layer on Gatun. */
@NullMarked
package dev.gatun.bench.demo;

import org.jspecify.annotations.NullMarked;
