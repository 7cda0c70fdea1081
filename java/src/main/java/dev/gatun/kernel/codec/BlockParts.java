package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * A GGUF block taken apart into small integers, scales and offsets: value = round(code · scale) +
 * offset, bit for bit. No layout of bits is repeated here: a block is decoded by its definition
 * three times with some of its bytes exchanged. With every scale 1 and every minimum 0 its values
 * are the codes; with every code 1 they are the scales, with every code 0 the offsets.
 */
public final class BlockParts {
  private static final int KEPT = -1;
  private static final int F16_ONE_HIGH = 0x3C;

  /** What bytes {@code from .. to-1} of a block are exchanged for in each of the three. */
  private record Bytes(int from, int to, int forCodes, int forScales, int forOffsets) {}

  private record Parts(int group, boolean offsets, List<Bytes> bytes) {}

  private static final Map<Encoding, Parts> PARTS = new EnumMap<>(Encoding.class);

  static {
    put(Encoding.Q4_0, 32, half(0), codes(2, 18, 0x99, 0x88));
    put(Encoding.Q4_1, 32, half(0), minimum(2), codes(4, 20, 0x11, 0));
    put(Encoding.Q5_0, 32, half(0), codes(2, 6, 0xFF, 0xFF), codes(6, 22, 0x11, 0));
    put(Encoding.Q5_1, 32, half(0), minimum(2), codes(4, 8, 0, 0), codes(8, 24, 0x11, 0));
    put(Encoding.Q8_0, 32, half(0), codes(2, 34, 1, 0));
    put(Encoding.Q8_1, 32, half(0), codes(4, 36, 1, 0));
    put(Encoding.Q2_K, 16, scales(0, 16, 1), codes(16, 80, 0x55, 0), half(80), minimum(82));
    put(
        Encoding.Q3_K,
        16,
        codes(0, 32, 0xFF, 0xFF),
        codes(32, 96, 0x55, 0),
        scales(96, 104, 0x11),
        scales(104, 108, 0xAA),
        half(108));
    put(Encoding.Q4_K, 32, half(0), minimum(2), scales6(), codes(16, 144, 0x11, 0));
    put(
        Encoding.Q5_K,
        32,
        half(0),
        minimum(2),
        scales6(),
        codes(16, 48, 0, 0),
        codes(48, 176, 0x11, 0));
    put(
        Encoding.Q6_K,
        16,
        codes(0, 128, 0x11, 0),
        codes(128, 192, 0xAA, 0xAA),
        scales(192, 208, 1),
        half(208));
    put(
        Encoding.Q8_K,
        32,
        new Bytes[] {one(0, 2, 0), one(2, 3, 0x80), one(3, 4, 0x3F)}, // binary32
        codes(4, 260, 1, 0));
    put(Encoding.IQ4_NL, 32, half(0), codes(2, 18, 0x88, 0x88));
    put(
        Encoding.IQ4_XS,
        32,
        half(0),
        scales(2, 4, 0xAA),
        scales(4, 8, 0x11),
        codes(8, 136, 0x88, 0x88));
    put(Encoding.TQ1_0, 32, codes(0, 52, 0xFF, 0), half(52));
    put(Encoding.TQ2_0, 32, codes(0, 64, 0xAA, 0x55), half(64));
    put(Encoding.MXFP4, 32, scales(0, 1, 128), codes(1, 17, 0x11, 0));
    put(Encoding.NVFP4, 16, scales(0, 4, 64), codes(4, 36, 0x11, 0));
    put(Encoding.Q1_0, 32, half(0), codes(2, 18, 0xFF, 0));
    put(Encoding.Q2_0, 32, half(0), codes(2, 18, 0xAA, 0x55));
  }

  /** Bytes of codes, and what makes all of them mean 1 or 0. */
  private static Bytes[] codes(int from, int to, int one, int zero) {
    return new Bytes[] {new Bytes(from, to, KEPT, one, zero)};
  }

  /** Bytes of scales, and what makes them 1. */
  private static Bytes[] scales(int from, int to, int one) {
    return new Bytes[] {new Bytes(from, to, one, KEPT, KEPT)};
  }

  /** Q4_K's and Q5_K's scales and minima of 6 bits, mixed in 12 bytes. */
  private static Bytes[] scales6() {
    return new Bytes[] {
      new Bytes(4, 8, 1, KEPT, KEPT),
      new Bytes(8, 12, 0, KEPT, KEPT),
      new Bytes(12, 16, 1, KEPT, KEPT)
    };
  }

  private static Bytes one(int from, int to, int value) {
    return new Bytes(from, to, value, KEPT, value);
  }

  /** A binary16 number that multiplies all scales. */
  private static Bytes[] half(int at) {
    return new Bytes[] {one(at, at + 1, 0), one(at + 1, at + 2, F16_ONE_HIGH)};
  }

  /** A binary16 number that is added or multiplies the minima. */
  private static Bytes[] minimum(int at) {
    return new Bytes[] {new Bytes(at, at + 2, 0, 0, KEPT)};
  }

  private static void put(Encoding encoding, int group, Bytes[]... bytes) {
    List<Bytes> all = Arrays.stream(bytes).flatMap(Arrays::stream).toList();
    boolean offsets = all.stream().anyMatch(b -> b.forScales == 0 && b.forOffsets == KEPT);
    PARTS.put(encoding, new Parts(group, offsets, all));
  }

  private final Encoding encoding;
  private final Parts parts;
  private final byte[] block;
  private final MemorySegment exchanged;
  private final float[] values;

  private BlockParts(Encoding encoding, Parts parts) {
    this.encoding = encoding;
    this.parts = parts;
    block = new byte[encoding.blockBytes()];
    exchanged = MemorySegment.ofArray(block);
    values = new float[encoding.blockElements()];
  }

  /** Takes blocks of this encoding apart; null when that is not known. Not thread-safe. */
  public static @Nullable BlockParts of(Encoding encoding) {
    Parts parts = PARTS.get(encoding);
    return parts == null || !GgufBlocks.decodes(encoding) ? null : new BlockParts(encoding, parts);
  }

  /** Consecutive weights that share a scale. */
  public int group() {
    return parts.group;
  }

  /** Whether its blocks add something after scaling. */
  public boolean hasOffsets() {
    return parts.offsets;
  }

  /**
   * What the codes can mean, rising, the last repeated up to 16; empty when they have more than 16
   * values.
   */
  public float[] table() {
    TreeSet<Float> all = new TreeSet<>();
    for (int fill = 0; fill < 256; fill++) {
      Arrays.fill(block, (byte) fill);
      exchange(0);
      GgufBlocks.decode(encoding, exchanged, 0, values);
      for (float value : values) {
        all.add(value + 0f); // one zero
      }
    }
    if (all.size() > 16) {
      return new float[0];
    }
    float[] table = new float[16];
    Arrays.fill(table, all.last()); // still in order
    int i = 0;
    for (float value : all) {
      table[i++] = value;
    }
    return table;
  }

  /** The codes of the block at a byte, as numbers; overwritten by the next call. */
  public float[] codes(MemorySegment data, long at) {
    return decode(data, at, 0);
  }

  /** The scale of each element; overwritten by the next call. */
  public float[] scales(MemorySegment data, long at) {
    return decode(data, at, 1);
  }

  /** The offset of each element; overwritten by the next call. */
  public float[] offsets(MemorySegment data, long at) {
    return decode(data, at, 2);
  }

  private float[] decode(MemorySegment data, long at, int part) {
    MemorySegment.copy(data, ValueLayout.JAVA_BYTE, at, block, 0, block.length);
    exchange(part);
    GgufBlocks.decode(encoding, exchanged, 0, values);
    return values;
  }

  private void exchange(int part) {
    for (Bytes b : parts.bytes) {
      int value = part == 0 ? b.forCodes : part == 1 ? b.forScales : b.forOffsets;
      if (value != KEPT) {
        Arrays.fill(block, b.from, b.to, (byte) value);
      }
    }
  }
}
