package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.function.IntSupplier;

/** What turns numbers into codes and back, on the device's memory: given to a stream. */
final class CudaCodecs {
  private CudaCodecs() {}

  /**
   * Rows {@code row0 .. row0+rows-1} of a matrix on the device as {@code outType} (F32, F16, BF16),
   * row-major without gaps.
   */
  static void dequantize(
      CudaStream stream,
      CudaMatrix matrix,
      long row0,
      long rows,
      CudaMemory out,
      Encoding outType) {
    Matrix m = matrix.description();
    if (row0 < 0 || rows < 0 || rows > m.n() - row0) {
      throw new GatunException(
          "dequantize: found rows "
              + row0
              + " to "
              + row0
              + " + "
              + rows
              + ", expected within 0 to "
              + m.n());
    }
    output("dequantize", m, rows, out, outType);
    giveMatrix(
        stream,
        matrix,
        out,
        () ->
            gatun_cuda_h.gatun_cuda_dequantize(
                stream.device(),
                matrix.struct(),
                row0,
                rows,
                out.address(),
                outType.id(),
                m.k(),
                stream.handle()));
  }

  /**
   * Row {@code ids[i]} of a matrix on the device as row i of {@code out}; a row of NaN for an id
   * outside the matrix.
   *
   * @param ids {@code count} 64-bit integers
   */
  static void embedding(
      CudaStream stream,
      CudaMatrix matrix,
      CudaMemory ids,
      long count,
      CudaMemory out,
      Encoding outType) {
    Matrix m = matrix.description();
    if (count < 0 || ids.byteSize() / Long.BYTES < count) {
      throw new IndexOutOfBoundsException(
          "embedding: found " + count + " ids in " + ids.byteSize() + " bytes");
    }
    output("embedding", m, count, out, outType);
    stream.checkHere(ids);
    ids.uses().enter();
    try {
      if (stream.isRecording()) {
        stream.remember(ids.uses());
      }
      giveMatrix(
          stream,
          matrix,
          out,
          () ->
              gatun_cuda_h.gatun_cuda_embedding(
                  stream.device(),
                  matrix.struct(),
                  ids.address(),
                  count,
                  out.address(),
                  outType.id(),
                  m.k(),
                  stream.handle()));
    } finally {
      ids.uses().leave();
    }
  }

  /**
   * Fills the codes and, unless the rule keeps them, the scales of a matrix on the device.
   *
   * @param w N × K numbers, row-major without gaps
   */
  static void quantize(
      CudaStream stream, CudaMatrix matrix, QuantizeRule rule, CudaMemory w, Encoding wType) {
    Matrix m = matrix.description();
    output("quantize", m, m.n(), w, wType);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment described = NativeBackend.describe(rule, arena);
      giveMatrix(
          stream,
          matrix,
          w,
          () ->
              gatun_cuda_h.gatun_cuda_quantize(
                  stream.device(),
                  matrix.struct(),
                  described,
                  w.address(),
                  wType.id(),
                  m.k(),
                  stream.handle()));
    }
  }

  private static void output(String what, Matrix m, long rows, CudaMemory memory, Encoding type) {
    if (!type.isPlain()) {
      throw new GatunException(what + ": found numbers of " + type + ", expected F32, F16 or BF16");
    }
    long bytes = Math.multiplyExact(Math.multiplyExact(rows, m.k()), type.bits() / 8);
    if (memory.byteSize() < bytes) {
      throw new IndexOutOfBoundsException(
          what + ": found " + memory.byteSize() + " bytes, expected at least " + bytes);
    }
  }

  /** Gives the stream a call that uses a matrix and other memory. */
  static void giveMatrix(
      CudaStream stream, CudaMatrix matrix, CudaMemory numbers, IntSupplier call) {
    stream.checkHere(matrix.memory());
    stream.checkHere(numbers);
    stream.give(matrix.memory().uses(), numbers.uses(), call);
  }

  /** {@code dst[i] = src[i]}, see {@link Backend#convert}. */
  static void convert(
      CudaStream stream,
      CudaMemory src,
      Encoding srcType,
      CudaMemory dst,
      Encoding dstType,
      long count,
      boolean saturate) {
    stream.give(
        src.uses(),
        dst.uses(),
        () ->
            gatun_cuda_h.gatun_cuda_convert(
                stream.device(),
                src.address(),
                srcType.id(),
                dst.address(),
                dstType.id(),
                count,
                saturate ? 1 : 0,
                stream.handle()));
  }
}
