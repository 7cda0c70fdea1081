/**
 * JMH benchmarks of single calls: {@code gatun bench jmh}. JMH makes subclasses of them, so that
 * they can be neither final nor package-private.
 */
@NullMarked
package dev.gatun.bench.jmh;

import org.jspecify.annotations.NullMarked;
