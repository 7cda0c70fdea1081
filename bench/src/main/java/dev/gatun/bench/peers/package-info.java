/**
 * {@code gatun bench peers}: our linear layers beside other engines', measured in turns in one
 * process; {@code gatun bench scaling}: beside themselves on fewer threads and with more callers.
 */
@NullMarked
package dev.gatun.bench.peers;

import org.jspecify.annotations.NullMarked;
