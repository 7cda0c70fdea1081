package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Every weight of every golden file: the library's own dequantized numbers, to the last bit. */
class GoldenDequantizeTest {
  static final List<String> FAMILIES =
      List.of("bnb", "comfy", "quanto", "torchao", "compressed_tensors", "awq", "gptq");

  private static final Backend REFERENCE = new ReferenceBackend();

  static Stream<Arguments> weights() {
    return FAMILIES.stream()
        .flatMap(
            family ->
                Golden.cases(family).stream()
                    .flatMap(
                        name ->
                            GoldenCase.weights(family, name).stream()
                                .map(weight -> Arguments.of(family, name, weight))));
  }

  @ParameterizedTest(name = "{0}/{1} {2}")
  @MethodSource("weights")
  void givesTheLibrarysNumbers(String family, String name, String weight) {
    GoldenCase golden = new GoldenCase(family, name);
    try (Checkpoint checkpoint = Checkpoint.open(golden.dir());
        SafetensorsFile reference = SafetensorsFile.open(golden.file("ref.safetensors"))) {
      QuantizedTensor layer = checkpoint.quantized(golden.layer(checkpoint, weight));
      Encoding type = golden.type(reference, weight);
      assertThat(layer.dtype()).isEqualTo(type);
      byte[] bytes = new byte[Math.toIntExact(layer.elements() * (type.bits() / 8))];
      REFERENCE.dequantize(
          layer.matrix(), 0, layer.matrix().n(), MemorySegment.ofArray(bytes), type);
      Tensor rows = golden.rows(reference, weight);
      assertSame(type, bytes, rows);
      golden
          .sha256(weight)
          .ifPresent(sha -> assertThat(sha256(bytes)).as("SHA-256 of the weight").isEqualTo(sha));
    }
  }

  /** Compares the rows that are in the file, so that a difference is shown with its place. */
  private static void assertSame(Encoding type, byte[] found, Tensor expected) {
    MemorySegment mine = MemorySegment.ofArray(found);
    long differences = 0;
    String first = "";
    for (long i = 0; i < expected.elements(); i++) {
      float a = Numbers.get(type, mine, i);
      float b = Numbers.get(type, expected.data(), i);
      if (Float.floatToRawIntBits(a) != Float.floatToRawIntBits(b)
          && !(Float.isNaN(a) && Float.isNaN(b))) {
        if (differences++ == 0) {
          first = "element " + i + ": found " + a + ", expected " + b;
        }
      }
    }
    assertThat(differences).as("of %d, first %s", expected.elements(), first).isZero();
  }

  private static String sha256(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
