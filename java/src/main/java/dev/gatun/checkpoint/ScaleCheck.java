package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.function.Function;

/**
 * Checks before a weight is used that its scales are numbers: a NaN or infinite scale means a
 * broken checkpoint.
 */
final class ScaleCheck {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private ScaleCheck() {}

  static void check(QuantizedTensor weight, Function<String, Path> fileOf) {
    Matrix matrix = weight.matrix();
    matrix.scales().ifPresent(scales -> finite(weight, scales.type(), scales.data(), fileOf));
    matrix.offsets().ifPresent(offsets -> finite(weight, offsets.type(), offsets.data(), fileOf));
    matrix.nested().ifPresent(nested -> finite(weight, Encoding.F32, nested.scales(), fileOf));
    matrix.rowScales().ifPresent(scales -> finite(weight, Encoding.F32, scales, fileOf));
    matrix.codebook().ifPresent(values -> finite(weight, Encoding.F32, values, fileOf));
    if (!Float.isFinite(matrix.globalScale())) {
      String tensor = weight.part("global_scale").map(Tensor::name).orElse(weight.name());
      throw Problem.tensor(
          fileOf.apply(tensor), tensor, String.valueOf(matrix.globalScale()), "a finite number");
    }
  }

  private static void finite(
      QuantizedTensor weight, Encoding type, MemorySegment data, Function<String, Path> fileOf) {
    long count = data.byteSize() * 8 / type.bits();
    for (long i = 0; i < count; i++) {
      if (!isFinite(type, data, i)) {
        String tensor = partOf(weight, data);
        throw Problem.tensor(
            fileOf.apply(tensor), tensor, text(type, data, i) + " at index " + i, "finite numbers");
      }
    }
  }

  private static boolean isFinite(Encoding type, MemorySegment data, long i) {
    return switch (type) {
      case F32 -> (data.get(INT, 4 * i) & 0x7F800000) != 0x7F800000;
      case F16 -> (data.get(SHORT, 2 * i) & 0x7C00) != 0x7C00;
      case BF16 -> (data.get(SHORT, 2 * i) & 0x7F80) != 0x7F80;
      case F8_E4M3 -> (data.get(ValueLayout.JAVA_BYTE, i) & 0x7F) != 0x7F;
      case F8_E8M0 -> data.get(ValueLayout.JAVA_BYTE, i) != (byte) 0xFF;
      default -> true;
    };
  }

  private static String text(Encoding type, MemorySegment data, long i) {
    boolean nan =
        switch (type) {
          case F32 -> (data.get(INT, 4 * i) & 0x7FFFFF) != 0;
          case F16 -> (data.get(SHORT, 2 * i) & 0x3FF) != 0;
          case BF16 -> (data.get(SHORT, 2 * i) & 0x7F) != 0;
          default -> true;
        };
    return nan ? "NaN" : "infinity";
  }

  /** The part that these numbers lie in. */
  private static String partOf(QuantizedTensor weight, MemorySegment data) {
    for (Tensor part : weight.parts().values()) {
      if (part.data().address() == data.address() && part.data().byteSize() >= data.byteSize()) {
        return part.name();
      }
    }
    return weight.name();
  }
}
