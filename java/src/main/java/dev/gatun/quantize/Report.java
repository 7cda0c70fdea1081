package dev.gatun.quantize;

import java.nio.file.Path;
import java.util.List;

/**
 * What a run over a checkpoint did.
 *
 * @param layers the layers that were quantized; empty when dequantizing
 * @param converted how many layers were quantized or dequantized
 * @param copied how many tensors were copied as they are
 * @param bytesBefore of all tensors read
 * @param bytesAfter of all tensors written
 * @param files the checkpoint and the files beside it
 */
public record Report(
    List<LayerReport> layers,
    int converted,
    int copied,
    long bytesBefore,
    long bytesAfter,
    List<Path> files) {}
