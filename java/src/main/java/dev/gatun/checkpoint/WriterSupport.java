package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** What the writers share: new tensors in native memory. */
final class WriterSupport {
  static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private WriterSupport() {}

  /** Two dimensions, F32, F16 or BF16, not empty. */
  static boolean isFloatMatrix(Tensor weight) {
    return weight.shape().size() == 2 && Parts.isFloat(weight) && weight.elements() > 0;
  }

  /** A tensor of zeros. */
  static Tensor allocate(Arena arena, String name, DType dtype, Long... shape) {
    return allocate(arena, entry(name, dtype, shape));
  }

  /** The same of an entry. */
  static Tensor allocate(Arena arena, SafetensorsWriter.Entry entry) {
    return new Tensor(
        entry.name(), entry.dtype(), entry.shape(), arena.allocate(entry.byteSize(), 64));
  }

  /** An entry. */
  static SafetensorsWriter.Entry entry(String name, DType dtype, Long... shape) {
    return new SafetensorsWriter.Entry(name, dtype, List.of(shape));
  }

  /** The entry of {@link #text}. */
  static SafetensorsWriter.Entry textEntry(String name, String text) {
    return entry(name, DType.U8, (long) text.getBytes(StandardCharsets.UTF_8).length);
  }

  /** A U8 tensor of UTF-8 text. */
  static Tensor text(Arena arena, String name, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    Tensor tensor = allocate(arena, name, DType.U8, (long) bytes.length);
    tensor.data().copyFrom(MemorySegment.ofArray(bytes));
    return tensor;
  }

  /** The number 1 as a scalar of F32, F16 or BF16. */
  static Tensor one(Arena arena, String name, DType dtype) {
    Tensor tensor = allocate(arena, name, dtype);
    switch (dtype) {
      case F32 -> tensor.data().set(FLOAT, 0, 1f);
      case F16 -> tensor.data().set(SHORT, 0, (short) 0x3C00);
      case BF16 -> tensor.data().set(SHORT, 0, (short) 0x3F80);
      default -> throw new IllegalArgumentException(dtype + " is no float type");
    }
    return tensor;
  }
}
