/**
 * {@code gatun bench peers}: our linear layers beside other engines', measured in turns in one
 * process.
 */
@NullMarked
package dev.gatun.bench.peers;

import org.jspecify.annotations.NullMarked;
