package dev.gatun.kernel;

import dev.gatun.bindings.gatun_matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/**
 * A {@link Matrix} whose memory lies on a GPU: codes, scales and all else that belongs to it, in
 * one block.
 */
public final class CudaMatrix implements AutoCloseable {
  private static final long ALIGNMENT = 256;

  private final Matrix description;
  private final CudaMemory memory;
  private final MemorySegment struct;

  private CudaMatrix(Matrix description, CudaMemory memory, MemorySegment struct) {
    this.description = description;
    this.memory = memory;
    this.struct = struct;
  }

  /** A copy of a matrix that has been checked; the stream has been given the upload. */
  static CudaMatrix upload(CudaStream stream, Matrix m) {
    CudaMemory memory = CudaMemory.allocate(stream.context(), byteSize(m));
    boolean done = false;
    try {
      long[] next = {0};
      MemorySegment struct =
          MatrixStruct.of(
              m,
              Arena.ofAuto(),
              (part, alignment) -> {
                CudaMemory place = memory.slice(next[0], part.byteSize());
                next[0] = aligned(next[0] + part.byteSize());
                stream.upload(part, place);
                return place.address();
              });
      done = true;
      return new CudaMatrix(MatrixCheck.description(m), memory, struct);
    } finally {
      if (!done) {
        memory.close();
      }
    }
  }

  private static long aligned(long bytes) {
    return Math.ceilDiv(bytes, ALIGNMENT) * ALIGNMENT;
  }

  private static List<MemorySegment> parts(Matrix m) {
    List<MemorySegment> parts = new ArrayList<>();
    try (Arena arena = Arena.ofConfined()) {
      MatrixStruct.of(
          m,
          arena,
          (part, alignment) -> {
            parts.add(part);
            return 0;
          });
    }
    return parts;
  }

  private static long byteSize(Matrix m) {
    return parts(m).stream().mapToLong(part -> aligned(part.byteSize())).sum();
  }

  /** Copies everything back into a matrix of the same description and sizes. */
  void download(CudaStream stream, Matrix into) {
    long at = 0;
    for (MemorySegment part : parts(into)) {
      if (!part.isReadOnly()) {
        stream.download(memory.slice(at, part.byteSize()), part);
      }
      at = aligned(at + part.byteSize());
    }
  }

  /** The matrix without its memory. */
  public Matrix description() {
    return description;
  }

  /** Its codes: for x that was quantized, the x of a {@link LinearCall#codes}. */
  public CudaMemory codes() {
    return part(gatun_matrix.codes(struct), gatun_matrix.codes_size(struct));
  }

  /** Its scales; of 0 bytes when it has none. */
  public CudaMemory scales() {
    return part(gatun_matrix.scales(struct), gatun_matrix.scales_size(struct));
  }

  private CudaMemory part(MemorySegment address, long bytes) {
    return memory.slice(bytes == 0 ? 0 : address.address() - memory.address(), bytes);
  }

  /** Bytes that it takes on the device. */
  public long byteSize() {
    return memory.byteSize();
  }

  CudaMemory memory() {
    return memory;
  }

  /** The {@code gatun_matrix}, which points to the device's memory. */
  MemorySegment struct() {
    return struct;
  }

  /** Gives the memory back as {@link CudaMemory} does. A second call does nothing. */
  @Override
  public void close() {
    memory.close();
  }
}
