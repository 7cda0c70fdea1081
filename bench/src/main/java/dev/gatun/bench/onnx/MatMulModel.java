package dev.gatun.bench.onnx;

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes ONNX models of one kind of matrix product: {@code y0 = op(x, weights)}, {@code y1 = op(x,
 * the weights rotated)} … ONNX Runtime keeps equal weights once, so that copies of them would be
 * read from a cache: each product has others. Field numbers are those of {@code onnx.proto}.
 */
public final class MatMulModel {
  /** ONNX's number for unsigned bytes. */
  public static final int UINT8 = 2;

  /** ONNX's number for signed bytes. */
  public static final int INT8 = 3;

  /** The domain of the operators that ONNX Runtime adds. */
  public static final String MICROSOFT = "com.microsoft";

  private static final int IR_VERSION = 8;
  private static final int OPSET = 17;
  private static final int ATTRIBUTE_INT = 2;

  /** Bytes from where one product's constants begin to where the next one's do. */
  private static final long ROTATION = 64;

  /** A constant input of the operator. */
  private record Constant(int type, List<Long> shape, byte[] data) {}

  private final String operator;
  private final String domain;
  private final Map<String, Constant> constants = new LinkedHashMap<>();
  private final Map<String, Long> attributes = new LinkedHashMap<>();

  /**
   * A model of an operator.
   *
   * @param domain empty for ONNX's own operators
   */
  public MatMulModel(String operator, String domain) {
    this.operator = operator;
    this.domain = domain;
  }

  /** The operator's name. */
  public String operator() {
    return operator;
  }

  /** Adds the operator's next input after x. */
  public MatMulModel constant(String name, int type, List<Long> shape, byte[] data) {
    constants.put(name, new Constant(type, List.copyOf(shape), data));
    return this;
  }

  /** Adds an attribute. */
  public MatMulModel attribute(String name, long value) {
    attributes.put(name, value);
    return this;
  }

  /**
   * Writes the model.
   *
   * @param copies how many products; the first one's weights are the constants as they were given
   */
  public void write(Path file, int copies, long n, long k) {
    ProtoWriter graph = new ProtoWriter().string(2, "products");
    for (int copy = 0; copy < copies; copy++) {
      graph.message(1, node(copy));
    }
    for (int copy = 0; copy < copies; copy++) {
      for (Map.Entry<String, Constant> constant : constants.entrySet()) {
        graph.message(5, tensor(constant.getKey() + copy, constant.getValue(), copy));
      }
    }
    graph.message(11, value("x", k));
    for (int copy = 0; copy < copies; copy++) {
      graph.message(12, value("y" + copy, n));
    }
    ProtoWriter model =
        new ProtoWriter().integer(1, IR_VERSION).message(7, graph).message(8, opset("", OPSET));
    if (!domain.isEmpty()) {
      model.message(8, opset(domain, 1));
    }
    try (OutputStream out = new BufferedOutputStream(Files.newOutputStream(file))) {
      model.writeTo(out);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private ProtoWriter node(int copy) {
    ProtoWriter node = new ProtoWriter().string(1, "x");
    constants.keySet().forEach(name -> node.string(1, name + copy));
    node.string(2, "y" + copy).string(3, "product" + copy).string(4, operator).string(7, domain);
    attributes.forEach(
        (name, value) ->
            node.message(
                5, new ProtoWriter().string(1, name).integer(3, value).integer(20, ATTRIBUTE_INT)));
    return node;
  }

  private static ProtoWriter tensor(String name, Constant constant, int copy) {
    ProtoWriter tensor = new ProtoWriter();
    constant.shape.forEach(size -> tensor.integer(1, size));
    int first = constant.data.length == 0 ? 0 : (int) (copy * ROTATION % constant.data.length);
    return tensor.integer(2, constant.type).string(8, name).rotated(9, constant.data, first);
  }

  private static ProtoWriter value(String name, long columns) {
    ProtoWriter shape =
        new ProtoWriter()
            .message(1, new ProtoWriter().string(2, "m"))
            .message(1, new ProtoWriter().integer(1, columns));
    ProtoWriter type =
        new ProtoWriter()
            .message(1, new ProtoWriter().integer(1, OnnxModel.FLOAT).message(2, shape));
    return new ProtoWriter().string(1, name).message(2, type);
  }

  private static ProtoWriter opset(String domain, long version) {
    return new ProtoWriter().string(1, domain).integer(2, version);
  }
}
