package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;

/** The tensors that a format looks up, with the checks that every format makes. */
record Parts(CheckpointSource source) {
  static final String WEIGHT = ".weight";
  private static final long LARGEST_JSON = 1 << 20;

  /** A matrix's sizes: the first of the shape, and the product of the rest. */
  record Size(long n, long k) {
    static Size of(List<Long> shape) {
      if (shape.isEmpty()) {
        return new Size(1, 1);
      }
      long rest = shape.stream().skip(1).reduce(1L, Math::multiplyExact);
      return shape.size() == 1 ? new Size(1, shape.get(0)) : new Size(shape.get(0), rest);
    }
  }

  Optional<Tensor> find(String name) {
    return Optional.ofNullable(source.tensors().get(name));
  }

  /** The tensor, or an exception that says what it is needed for. */
  Tensor require(String name, String what) {
    return find(name)
        .orElseThrow(() -> Problem.tensor(source.path(), name, "no such tensor", what));
  }

  /** Refuses another type. */
  void dtype(Tensor tensor, DType... expected) {
    if (!Arrays.asList(expected).contains(tensor.dtype())) {
      String types = Arrays.stream(expected).map(DType::name).collect(Collectors.joining(" or "));
      throw problem(tensor, tensor.dtype() + " " + tensor.shape(), types);
    }
  }

  /** Refuses another shape. */
  void shape(Tensor tensor, Long... expected) {
    if (!tensor.shape().equals(List.of(expected))) {
      throw problem(tensor, "shape " + tensor.shape(), "shape " + List.of(expected));
    }
  }

  /** Refuses more or less than one number of a float type. */
  Matrix.Values scalar(Tensor tensor) {
    dtype(tensor, DType.F32, DType.F16, DType.BF16);
    if (tensor.shape().size() > 1 || tensor.elements() != 1) {
      throw problem(tensor, "shape " + tensor.shape(), "one number, shape [] or [1]");
    }
    return values(tensor);
  }

  /** Refuses another number of elements, however they are shaped. */
  void count(Tensor tensor, long expected) {
    if (tensor.elements() != expected) {
      throw problem(tensor, "shape " + tensor.shape(), expected + " elements");
    }
  }

  /** Numbers of a float type, so many of them, however they are shaped. */
  Matrix.Values floats(Tensor tensor, long expected) {
    dtype(tensor, DType.F32, DType.F16, DType.BF16);
    count(tensor, expected);
    return values(tensor);
  }

  /** Refuses a tensor without exactly two dimensions of at least one element. */
  void matrix(Tensor tensor) {
    if (tensor.shape().size() != 2 || tensor.elements() == 0) {
      throw problem(tensor, "shape " + tensor.shape(), "two dimensions that are not empty");
    }
  }

  static Matrix.Values values(Tensor tensor) {
    return new Matrix.Values(encoding(tensor), tensor.data());
  }

  static Encoding encoding(Tensor tensor) {
    return tensor.dtype().encoding().orElseThrow();
  }

  /** The text of a U8 tensor that holds JSON. */
  JsonNode json(Tensor tensor) {
    dtype(tensor, DType.U8, DType.I8);
    if (tensor.data().byteSize() > LARGEST_JSON) {
      throw problem(tensor, tensor.data().byteSize() + " bytes of JSON", "at most " + LARGEST_JSON);
    }
    try {
      return Json.tree(tensor.data().toArray(ValueLayout.JAVA_BYTE));
    } catch (IOException e) {
      throw new GatunException(
          source.fileOf(tensor.name())
              + ": tensor "
              + Problem.quote(tensor.name())
              + ": found "
              + Json.reason(e)
              + ", expected a JSON object",
          e);
    }
  }

  GatunException problem(Tensor tensor, String found, String expected) {
    return Problem.tensor(source.fileOf(tensor.name()), tensor.name(), found, expected);
  }

  /** F32, F16 or BF16. */
  static boolean isFloat(Tensor tensor) {
    return tensor.dtype() == DType.F32
        || tensor.dtype() == DType.F16
        || tensor.dtype() == DType.BF16;
  }

  /** A name without {@code .weight} at its end. */
  static String layerOf(String weight) {
    return weight.endsWith(WEIGHT)
        ? weight.substring(0, weight.length() - WEIGHT.length())
        : weight;
  }
}
