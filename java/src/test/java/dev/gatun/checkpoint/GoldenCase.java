package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.Tensor;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.TreeSet;

/** One golden case: a checkpoint and what its library computes from it. */
record GoldenCase(String family, String name) {
  private static final String DEQUANTIZED = ".dq";

  /**
   * Where a file cannot hold what was quantized (AutoGPTQ's first format has no zero point of 0 and
   * spills into its neighbours), this is what the library reads back.
   */
  private static final String READ_BACK = ".dq_lib";

  /** The weights whose dequantized numbers are known, by the name that the case gives them. */
  static List<String> weights(String family, String name) {
    GoldenCase golden = new GoldenCase(family, name);
    if (!java.nio.file.Files.exists(golden.file("ref.safetensors"))) {
      return List.of();
    }
    TreeSet<String> names = new TreeSet<>();
    try (SafetensorsFile reference = SafetensorsFile.open(golden.file("ref.safetensors"))) {
      for (String tensor : reference.tensors().keySet()) {
        int end = tensor.endsWith(".head") ? tensor.length() - 5 : tensor.length();
        if (tensor.substring(0, end).endsWith(DEQUANTIZED)) {
          names.add(tensor.substring(0, end - DEQUANTIZED.length()));
        }
      }
    }
    return List.copyOf(names);
  }

  /** Whether the product with the weight is in the case. */
  boolean hasProduct(String weight) {
    try (SafetensorsFile reference = SafetensorsFile.open(file("ref.safetensors"))) {
      return reference.tensors().containsKey(weight + ".y_dq32");
    }
  }

  /** The type that the weight and the input had before the weight was quantized. */
  Encoding inputType(Encoding dequantized) {
    return switch (description().path("weight_dtype").asText("")) {
      case "torch.float32" -> Encoding.F32;
      case "torch.float16" -> Encoding.F16;
      case "torch.bfloat16" -> Encoding.BF16;
      default -> dequantized == Encoding.F32 ? Encoding.F16 : dequantized; // LLM.int8() is for F16
    };
  }

  Path dir() {
    return Golden.dir(family, name);
  }

  Path file(String fileName) {
    return Golden.file(family, name, fileName);
  }

  JsonNode description() {
    return Golden.description(family, name);
  }

  /** The layer's plain name in the checkpoint. */
  String layer(Checkpoint checkpoint, String weight) {
    return checkpoint.layers().containsKey(weight) ? weight : "blocks.0." + weight;
  }

  /** The dequantized weight, or its first rows. */
  Tensor rows(SafetensorsFile reference, String weight) {
    String suffix =
        reference.tensors().containsKey(weight + READ_BACK + ".head") ? READ_BACK : DEQUANTIZED;
    Tensor whole = reference.tensors().get(weight + suffix);
    return whole != null ? whole : reference.tensors().get(weight + suffix + ".head");
  }

  /** The type that the library dequantizes to. */
  Encoding type(SafetensorsFile reference, String weight) {
    return rows(reference, weight).dtype().encoding().orElseThrow();
  }

  /** The hash of the whole dequantized weight where its rows are not all there. */
  Optional<String> sha256(String weight) {
    JsonNode hashes = description().path("sha256");
    String suffix = hashes.has(weight + READ_BACK) ? READ_BACK : DEQUANTIZED;
    JsonNode hash = hashes.path(weight + suffix).path("sha256");
    return hash.isTextual() ? Optional.of(hash.asText()) : Optional.empty();
  }
}
