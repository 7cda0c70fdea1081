/** What quantizing costs and what it loses, and the chart of a report. */
@NullMarked
package dev.gatun.bench.quantize;

import org.jspecify.annotations.NullMarked;
