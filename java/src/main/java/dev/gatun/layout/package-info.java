/** Layouts: what makes the numbers of a quantized tensor out of its parts. One class a layout. */
@NullMarked
package dev.gatun.layout;

import org.jspecify.annotations.NullMarked;
