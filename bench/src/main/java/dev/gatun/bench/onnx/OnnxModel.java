package dev.gatun.bench.onnx;

import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The weights and the nodes of an ONNX model. Field numbers are those of {@code onnx.proto};
 * tensors whose numbers do not lie in {@code raw_data} are refused.
 */
public final class OnnxModel {
  /** ONNX's number for 32-bit floats. */
  public static final int FLOAT = 1;

  /**
   * A named weight.
   *
   * @param type ONNX's number of the element type
   * @param data little-endian, row-major; a slice of the model
   */
  public record Initializer(String name, int type, List<Long> shape, MemorySegment data) {
    /** Copies the shape. */
    public Initializer {
      shape = List.copyOf(shape);
    }
  }

  /** One operator of the graph. */
  public record Node(String name, String operator, List<String> inputs, List<String> outputs) {
    /** Copies the lists. */
    public Node {
      inputs = List.copyOf(inputs);
      outputs = List.copyOf(outputs);
    }
  }

  private final String source;
  private final Map<String, Initializer> initializers = new LinkedHashMap<>();
  private final List<Node> nodes = new ArrayList<>();

  private OnnxModel(String source) {
    this.source = source;
  }

  /**
   * Reads a model.
   *
   * @param source for messages of exceptions
   * @param data the model's bytes; must outlive the result
   * @throws GatunException when it is no ONNX model that can be read here
   */
  public static OnnxModel read(String source, MemorySegment data) {
    OnnxModel model = new OnnxModel(source);
    ProtoReader message = new ProtoReader(source, data);
    boolean found = false;
    while (message.next()) {
      if (message.field() == 7) {
        model.graph(message.message());
        found = true;
      }
    }
    if (!found) {
      throw new GatunException(source + ": found no graph, expected an ONNX model");
    }
    return model;
  }

  private void graph(ProtoReader graph) {
    while (graph.next()) {
      switch (graph.field()) {
        case 1 -> nodes.add(node(graph.message()));
        case 5 -> {
          Initializer weight = initializer(graph.message());
          if (initializers.put(weight.name(), weight) != null) {
            throw new GatunException(
                source + ": '" + weight.name() + "': found two initializers, expected one");
          }
        }
        default -> {}
      }
    }
  }

  private static Node node(ProtoReader node) {
    List<String> inputs = new ArrayList<>();
    List<String> outputs = new ArrayList<>();
    String name = "";
    String operator = "";
    while (node.next()) {
      switch (node.field()) {
        case 1 -> inputs.add(node.string());
        case 2 -> outputs.add(node.string());
        case 3 -> name = node.string();
        case 4 -> operator = node.string();
        default -> {}
      }
    }
    return new Node(name, operator, inputs, outputs);
  }

  private Initializer initializer(ProtoReader tensor) {
    List<Long> shape = new ArrayList<>();
    int type = 0;
    String name = "";
    MemorySegment data = MemorySegment.NULL;
    while (tensor.next()) {
      switch (tensor.field()) {
        case 1 -> {
          for (long size : tensor.isPacked() ? tensor.packed() : new long[] {tensor.integer()}) {
            shape.add(size);
          }
        }
        case 2 -> type = Math.toIntExact(tensor.integer());
        case 8 -> name = tensor.string();
        case 9 -> data = tensor.bytes();
        default -> {}
      }
    }
    if (type == FLOAT) {
      long bytes = Float.BYTES;
      for (long size : shape) {
        if (size < 0 || (bytes != 0 && size > Long.MAX_VALUE / bytes)) {
          throw new GatunException(
              source + ": '" + name + "': found shape " + shape + ", expected sizes of a tensor");
        }
        bytes *= size;
      }
      if (bytes != data.byteSize()) {
        throw new GatunException(
            source
                + ": '"
                + name
                + "': found "
                + data.byteSize()
                + " bytes of raw data, expected "
                + bytes
                + " for floats of shape "
                + shape);
      }
    }
    return new Initializer(name, type, shape, data);
  }

  /** What was read, for messages. */
  public String source() {
    return source;
  }

  /** The weights by name, in the model's order. */
  public Map<String, Initializer> initializers() {
    return java.util.Collections.unmodifiableMap(initializers);
  }

  /** The operators, in the model's order. */
  public List<Node> nodes() {
    return java.util.Collections.unmodifiableList(nodes);
  }
}
