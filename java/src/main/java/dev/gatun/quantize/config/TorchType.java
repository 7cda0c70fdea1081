package dev.gatun.quantize.config;

import dev.gatun.GatunException;
import java.util.Arrays;
import java.util.Collection;
import java.util.EnumSet;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;

/** A number type by PyTorch's name: {@code float16}; {@code torch.float16} is read too. */
public enum TorchType {
  FLOAT64,
  FLOAT32,
  FLOAT16,
  BFLOAT16,
  INT8,
  UINT8,
  FLOAT8_E4M3FN,
  FLOAT8_E5M2;

  /** What a product may be computed in. */
  public static final Set<TorchType> COMPUTE =
      Set.copyOf(EnumSet.of(FLOAT64, FLOAT32, FLOAT16, BFLOAT16));

  /** What bitsandbytes' 4-bit codes may be stored as. */
  public static final Set<TorchType> STORAGE =
      Set.copyOf(EnumSet.of(FLOAT64, FLOAT32, FLOAT16, BFLOAT16, INT8, UINT8));

  /** What 8-bit float weights may be stored as. */
  static final Set<TorchType> FLOAT8 = Set.copyOf(EnumSet.of(FLOAT8_E4M3FN, FLOAT8_E5M2));

  /** {@code float16}. */
  public String text() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The type of a name.
   *
   * @param where what is being read, for the message
   * @throws GatunException when the name is none of {@code allowed}
   */
  static TorchType of(String name, Collection<TorchType> allowed, String where) {
    String bare = name.startsWith("torch.") ? name.substring("torch.".length()) : name;
    return Arrays.stream(values())
        .filter(type -> allowed.contains(type) && type.text().equals(bare))
        .findFirst()
        .orElseThrow(
            () ->
                new GatunException(
                    where
                        + ": found '"
                        + name
                        + "', expected one of "
                        + Arrays.stream(values())
                            .filter(allowed::contains)
                            .map(TorchType::text)
                            .collect(Collectors.joining(", "))));
  }
}
