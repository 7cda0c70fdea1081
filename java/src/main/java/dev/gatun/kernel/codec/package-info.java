/** The definition of every encoding: one number to its code and back, in plain Java. */
@NullMarked
package dev.gatun.kernel.codec;

import org.jspecify.annotations.NullMarked;
