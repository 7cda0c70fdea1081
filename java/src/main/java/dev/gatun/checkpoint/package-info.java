/**
 * Checkpoints: the containers (safetensors and GGUF, in one file or several), and one class a
 * checkpoint format that says which tensors make up a quantized weight. {@link
 * dev.gatun.checkpoint.Checkpoint} is what users open.
 */
@NullMarked
package dev.gatun.checkpoint;

import org.jspecify.annotations.NullMarked;
