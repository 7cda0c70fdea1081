/** What users touch: tensors, quantized weights, devices and linear layers. */
@NullMarked
package dev.gatun;

import org.jspecify.annotations.NullMarked;
