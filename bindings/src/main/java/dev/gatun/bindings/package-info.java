/**
 * The bindings of {@code gatun.h}, as jextract generates them, and {@link
 * dev.gatun.bindings.NativeLibrary}, which finds the library that they call. Nothing named {@code
 * gatun_…} may be touched before {@link dev.gatun.bindings.NativeLibrary#load} found it.
 */
@NullMarked
package dev.gatun.bindings;

import org.jspecify.annotations.NullMarked;
