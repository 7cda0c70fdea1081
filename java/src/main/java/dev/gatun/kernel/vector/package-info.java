/** The pure-Java backend on the Vector API ({@code jdk.incubator.vector}). */
@NullMarked
package dev.gatun.kernel.vector;

import org.jspecify.annotations.NullMarked;
