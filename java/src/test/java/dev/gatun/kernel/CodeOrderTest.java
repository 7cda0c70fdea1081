package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Every order of codes with every width that it can have. */
class CodeOrderTest {
  private static Matrix matrix(CodeOrder order, Encoding encoding, long n, long k) {
    Matrix bare =
        Matrix.builder(n, k, encoding, MemorySegment.NULL)
            .codeOrder(order)
            .granularity(Granularity.perGroup(k, 4))
            .build();
    byte[] codes = new byte[Math.toIntExact(MatrixCheck.codeBytes(bare))];
    return bare.toBuilder().codes(MemorySegment.ofArray(codes)).build();
  }

  static Stream<Arguments> possible() {
    List<Encoding> all =
        Arrays.stream(Encoding.values()).filter(e -> e.bits() >= 1 && e.bits() <= 8).toList();
    return Arrays.stream(CodeOrder.values())
        .flatMap(order -> all.stream().map(encoding -> Arguments.of(order, encoding)))
        .filter(
            a -> {
              try {
                matrix((CodeOrder) a.get()[0], (Encoding) a.get()[1], 1, 8);
                return true;
              } catch (GatunException e) {
                return false;
              }
            });
  }

  @ParameterizedTest
  @MethodSource("possible")
  void everyCodeHasItsOwnBits(CodeOrder order, Encoding encoding) {
    int mask = (1 << encoding.bits()) - 1;
    for (long[] shape : new long[][] {{1, 4}, {5, 12}, {8, 32}, {9, 36}, {17, 132}, {3, 100}}) {
      Matrix m = matrix(order, encoding, shape[0], shape[1]);
      for (int turn = 0; turn < 2; turn++) { // the second time over what the first left
        for (long row = 0; row < shape[0]; row++) {
          for (long column = 0; column < shape[1]; column++) {
            MatrixValues.putCode(m, row, column, code(row, column, turn) & mask);
          }
        }
        for (long row = 0; row < shape[0]; row++) {
          for (long column = 0; column < shape[1]; column++) {
            assertThat(MatrixValues.code(m, row, column))
                .as("%s %s (%d, %d)", order, encoding, row, column)
                .isEqualTo(code(row, column, turn) & mask);
          }
        }
      }
    }
  }

  private static int code(long row, long column, int turn) {
    return (int) (row * 31 + column * 7 + turn * 85 + (row * column >> 2));
  }

  /** Where a single code of all ones lies: the set bits of the stream, by formula. */
  @ParameterizedTest
  @CsvSource({
    "LOW_FIRST, U4, 1, 3, 8, 44", // (1·8 + 3)·4
    "HIGH_FIRST, U4, 0, 0, 8, 4",
    "HIGH_FIRST, U4, 1, 3, 8, 40", // element 11 is odd: the low half of byte 5
    "BITS, U3, 0, 10, 16, 30",
    "BITS, U6, 1, 1, 16, 102", // 16·6 + 6
    "WORDS, U3, 0, 10, 20, 32", // ten codes a word
    "WORDS, U5, 1, 7, 12, 101", // two words a row: word 3, slot 1
    "WORDS_K, U4, 2, 9, 16, 164", // the second row of 3 words: word 5, slot 1
    "WORDS_N, U4, 1, 0, 4, 16",
    "SPLIT_ROWS, U4, 2, 1, 4, 12",
    "SPLIT_ROWS, U2, 2, 3, 4, 28"
  })
  void codesLieWhereTheFormulaSays(
      CodeOrder order, Encoding encoding, long row, long column, long k, long bit) {
    Matrix m = matrix(order, encoding, 3, k);
    MatrixValues.putCode(m, row, column, (1 << encoding.bits()) - 1);
    byte[] bytes = (byte[]) m.codes().heapBase().orElseThrow();
    StringBuilder set = new StringBuilder();
    for (int i = 0; i < 8 * bytes.length; i++) {
      if ((bytes[i / 8] >> i % 8 & 1) != 0) {
        set.append(i).append(' ');
      }
    }
    StringBuilder expected = new StringBuilder();
    for (int i = 0; i < encoding.bits(); i++) {
      expected.append(bit + i).append(' ');
    }
    assertThat(set.toString()).isEqualTo(expected.toString());
  }

  @Test
  void threeBitsAlongKFillThreeWordsThatAreARowApart() {
    Matrix m = matrix(CodeOrder.WORDS_K, Encoding.U3, 2, 32);
    MatrixValues.putCode(m, 1, 10, 7); // two bits at 30 of word 0, one at 0 of word 1
    byte[] bytes = (byte[]) m.codes().heapBase().orElseThrow();
    assertThat(bytes).hasSize(24);
    assertThat(bytes[7]).isEqualTo((byte) 0xC0);
    assertThat(bytes[12]).isEqualTo((byte) 1);
  }

  @ParameterizedTest
  @CsvSource({
    "LOW_FIRST, U3",
    "HIGH_FIRST, U2",
    "WORDS_N, U8",
    "WORDS_K, U5",
    "SPLIT_ROWS, U3",
    "TILES_8X16, I8",
    "WORDS, F32",
    "BITS, Q4_0"
  })
  void refusesAnOrderThatTheEncodingCannotHave(CodeOrder order, Encoding encoding) {
    assertThatThrownBy(() -> matrix(order, encoding, 4, 32))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining(encoding.name())
        .hasMessageContaining(order.name());
  }
}
