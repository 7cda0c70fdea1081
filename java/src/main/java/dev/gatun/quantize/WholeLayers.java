package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.RowQuantizer;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Deviation;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Relay;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.PlainLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Quantizes layers that their formats need whole, and converts those that are quantized already:
 * several side by side, as far as twice the largest tensor's memory allows.
 */
final class WholeLayers {
  private static final String WEIGHT = ".weight";

  /** What the JVM needs for itself, about. */
  private static final long OWN = 192L << 20;

  /** Up to so much memory for weights, what the JVM needs is not counted: it would be the most. */
  private static final long LITTLE = 512L << 20;

  private final Checkpoint source;
  private final Writers writers;
  private final Scaling scaling;
  private final Backend backend;
  private final int threads;
  private final ProgressListener progress;
  private final Spool spool;

  /**
   * @param scaling of floats; formats that refuse it choose scales their own way
   * @param spool where the layers go
   */
  WholeLayers(
      Checkpoint source,
      Writers writers,
      Scaling scaling,
      Backend backend,
      int threads,
      ProgressListener progress,
      Spool spool) {
    this.source = source;
    this.writers = writers;
    this.scaling = scaling;
    this.backend = backend;
    this.threads = threads;
    this.progress = progress;
    this.spool = spool;
  }

  void run(List<LayerWork> work) {
    long largest =
        Stream.concat(
                source.tensors().values().stream().map(tensor -> tensor.data().byteSize()),
                work.stream().map(LayerWork::floats))
            .max(Long::compare)
            .orElse(0L);
    long memory = Math.max(2 * largest - OWN, Math.min(2 * largest, LITTLE));
    long limit =
        work.stream()
            .map(LayerWork::format)
            .distinct()
            .mapToLong(format -> writers.of(format).adjustMaxMemory(memory))
            .min()
            .orElse(0);
    MemoryBudget budget = new MemoryBudget(limit);
    AtomicReference<@Nullable RuntimeException> failure = new AtomicReference<>();
    try (ExecutorService workers = Executors.newFixedThreadPool(threads)) {
      for (LayerWork item : work) {
        long cost = MemoryBudget.cost(item);
        budget.acquire(cost);
        if (failure.get() != null) {
          budget.release(cost);
          break;
        }
        var _ =
            workers.submit(
                () -> {
                  try {
                    run(item);
                  } catch (RuntimeException | Error e) {
                    failure.compareAndSet(
                        null, e instanceof RuntimeException r ? r : new IllegalStateException(e));
                  } finally {
                    budget.release(cost);
                  }
                });
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new GatunException("interrupted", e);
    }
    RuntimeException failed = failure.get();
    if (failed != null) {
      throw failed;
    }
  }

  private void run(LayerWork item) {
    source.verifyFiles();
    try (Arena arena = Arena.ofShared()) {
      switch (item) {
        case LayerWork.Fresh fresh -> quantize(fresh, arena);
        case LayerWork.Again again -> {
          convert(again, arena);
          source.release(again.weight());
        }
      }
    }
  }

  private void quantize(LayerWork.Fresh item, Arena arena) {
    MemorySegment data = source.again(item.weight().data(), arena);
    Optional<Tensor> multiplier = writers.multiplierOfFloats(source, item);
    if (multiplier.isPresent()) {
      data = arena.allocate(data.byteSize(), 64).copyFrom(data);
    }
    Tensor weight =
        new Tensor(item.weight().name(), item.weight().dtype(), item.weight().shape(), data);
    multiplier.ifPresent(m -> fold(item, weight, m));
    LayerWriter writer = writers.of(item.format());
    writer.checkShape(weight);
    LayerWriter.Quantized quantized =
        writer.quantize(
            item.layer(), weight, writers.scaling(item.format(), scaling), backend, arena);
    keep(item, item.format(), quantized, weight, LayerReport.How.QUANTIZED);
  }

  /** A layer that is quantized already. */
  private void convert(LayerWork.Again item, Arena arena) {
    QuantizedTensor weight = source.quantized(item.layer());
    LayerWriter writer = writers.of(item.format());
    Tensor header =
        new Tensor(
            item.layer() + WEIGHT,
            DType.valueOf(weight.dtype().name()),
            weight.shape(),
            MemorySegment.NULL);
    Optional<Tensor> multiplier = weight.inputMultiplier();
    Optional<Tensor> carried =
        writer.inputMultiplier(item.layer()).flatMap(name -> multiplier.map(m -> renamed(m, name)));
    List<Tensor> kept = activations(item, weight);
    boolean takes = header.shape().size() == 2 && writer.accepts(header);
    if (takes && carried.isPresent() == multiplier.isPresent()) {
      List<Tensor> more = new ArrayList<>(carried.stream().toList());
      if (relay(item, weight, header, Stream.concat(more.stream(), kept.stream()).toList())) {
        return;
      }
      Optional<RowQuantizer> rows = writer.byRows(item.layer(), header);
      if (rows.isPresent()) {
        more.addAll(kept);
        requantize(item, weight, rows.get(), header, more, arena);
        return;
      }
    }
    Tensor plain = dequantized(weight, arena);
    if (multiplier.isPresent() && !(takes && carried.isPresent())) {
      fold(item, plain, multiplier.get());
    }
    if (takes) {
      LayerWriter.Quantized quantized =
          with(
              with(writer.quantize(item.layer(), plain, backend, arena), carried.stream().toList()),
              kept);
      keep(item, item.format(), quantized, plain, LayerReport.How.REQUANTIZED);
    } else {
      Matrix floats =
          new PlainLayout(weight.dtype())
              .matrix(weight.matrix().n(), weight.matrix().k(), plain.data());
      LayerWriter.Quantized unchanged = new LayerWriter.Quantized(List.of(plain), floats);
      keep(item, item.format(), unchanged, plain, LayerReport.How.DEQUANTIZED);
    }
  }

  /** Lays codes and scales out anew, if the format can hold them. */
  private boolean relay(
      LayerWork.Again item, QuantizedTensor weight, Tensor header, List<Tensor> more) {
    try (Arena arena = Arena.ofShared()) {
      Optional<LayerWriter.Quantized> relaid =
          writers
              .of(item.format())
              .blank(item.layer(), weight, arena)
              .filter(blank -> Relay.fill(weight.matrix(), blank.matrix()))
              .map(blank -> with(blank.finished(), inputScale(item, weight).stream().toList()))
              .map(relay -> with(relay, more));
      if (relaid.isEmpty()) {
        return false;
      }
      Matrix matrix = relaid.get().matrix();
      boolean same = Relay.isSame(weight.matrix(), matrix);
      // Without loss it is compared in the type that the weight had.
      Matrix compared = same ? matrix.withResult(weight.dtype()) : matrix;
      Deviation[] deviation = {Deviation.NONE};
      pieces(
          weight,
          1,
          (first, numbers, _) -> {
            long count = numbers.shape().get(0);
            deviation[0] =
                deviation[0].plus(
                    backend.deviation(compared, first, count, numbers.data(), weight.dtype()));
          });
      LayerReport.How how = same ? LayerReport.How.LOSSLESS : LayerReport.How.RELAID;
      keep(item, item.format(), relaid.get().tensors(), new ErrorMeter(deviation[0]), header, how);
      return true;
    }
  }

  /** Dequantizes and quantizes again, some rows at a time. */
  private void requantize(
      LayerWork.Again item,
      QuantizedTensor weight,
      RowQuantizer rows,
      Tensor header,
      List<Tensor> more,
      Arena arena) {
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    for (SafetensorsWriter.Entry entry : rows.entries()) {
      tensors.put(entry.name(), allocate(entry, arena));
    }
    if (rows.looksFirst()) {
      pieces(weight, rows.step(), (_, numbers, _) -> rows.look(numbers));
    }
    Deviation[] deviation = {Deviation.NONE};
    pieces(
        weight,
        rows.step(),
        (first, numbers, memory) -> {
          RowQuantizer.Piece piece = rows.quantize(first, numbers, backend, memory);
          for (RowQuantizer.Part part : piece.parts()) {
            put(tensors, part.tensor(), part.offset(), part.bytes());
          }
          long count = numbers.shape().get(0);
          deviation[0] =
              deviation[0].plus(
                  backend.deviation(piece.matrix(), 0, count, numbers.data(), weight.dtype()));
        });
    rows.rest(backend, arena).forEach(rest -> put(tensors, rest.name(), 0, rest.data()));
    more.forEach(tensor -> tensors.put(tensor.name(), tensor));
    keep(
        item,
        item.format(),
        List.copyOf(tensors.values()),
        new ErrorMeter(deviation[0]),
        header,
        LayerReport.How.REQUANTIZED);
  }

  private static void put(
      Map<String, Tensor> tensors, String name, long offset, MemorySegment bytes) {
    Tensor tensor = Objects.requireNonNull(tensors.get(name));
    MemorySegment.copy(bytes, 0, tensor.data(), offset, bytes.byteSize());
  }

  /** Takes some rows of a weight as floats, which are there during the call only. */
  private interface Rows {
    void take(long first, Tensor numbers, Arena memory);
  }

  /** Dequantizes a weight in pieces of so many rows or a multiple of them. */
  private void pieces(QuantizedTensor weight, long step, Rows rows) {
    Matrix matrix = weight.matrix();
    DType dtype = DType.valueOf(weight.dtype().name());
    long bytesPerRow = matrix.k() * weight.dtype().bits() / Byte.SIZE;
    long atOnce = step * Math.max(1, RowChunks.rows(bytesPerRow) / step);
    for (long first = 0; first < matrix.n(); first += atOnce) {
      long count = Math.min(atOnce, matrix.n() - first);
      try (Arena memory = Arena.ofShared()) {
        SafetensorsWriter.Entry entry =
            new SafetensorsWriter.Entry(weight.name() + WEIGHT, dtype, List.of(count, matrix.k()));
        Tensor numbers = allocate(entry, memory);
        backend.dequantize(matrix, first, count, numbers.data(), weight.dtype());
        rows.take(first, numbers, memory);
      }
    }
  }

  private static Tensor allocate(SafetensorsWriter.Entry entry, Arena arena) {
    MemorySegment data = arena.allocate(Math.max(1, entry.byteSize()), 64);
    return new Tensor(
        entry.name(), entry.dtype(), entry.shape(), data.asSlice(0, entry.byteSize()));
  }

  /** What a layer keeps of its static activations, however its weight is quantized. */
  private List<Tensor> activations(LayerWork.Again item, QuantizedTensor weight) {
    if (weight.activations().isEmpty() || !staysInFormat(item)) {
      return List.of();
    }
    List<Tensor> kept = new ArrayList<>();
    writers
        .of(item.format())
        .activations(item.layer())
        .forEach(
            (role, name) -> weight.part(role).ifPresent(scale -> kept.add(renamed(scale, name))));
    return kept;
  }

  /** What the activations are rounded to whose scales a layer keeps. */
  private Optional<Encoding> activationType(LayerWork item) {
    return item instanceof LayerWork.Again again && !activations(again, again.weight()).isEmpty()
        ? again.weight().activations().map(StaticActivations::encoding)
        : Optional.empty();
  }

  private boolean staysInFormat(LayerWork.Again item) {
    String own = source.format(item.layer()).map(CheckpointFormat::name).orElse("");
    return own.equals(Quantizer.family(item.format()).name());
  }

  /** The scale of a layer's static activations, when it stays in its checkpoint format. */
  private Optional<Tensor> inputScale(LayerWork.Again item, QuantizedTensor weight) {
    return weight
        .part(QuantizedTensor.INPUT_SCALE)
        .filter(scale -> staysInFormat(item))
        .flatMap(
            s -> writers.of(item.format()).inputScale(item.layer()).map(name -> renamed(s, name)));
  }

  private static Tensor renamed(Tensor t, String name) {
    return new Tensor(name, t.dtype(), t.shape(), t.data());
  }

  /** With further tensors, or others in place of those of the same names. */
  private static LayerWriter.Quantized with(LayerWriter.Quantized quantized, List<Tensor> more) {
    List<Tensor> tensors = new ArrayList<>(quantized.tensors());
    for (Tensor tensor : more) {
      tensors.removeIf(old -> old.name().equals(tensor.name()));
      tensors.add(tensor);
    }
    return new LayerWriter.Quantized(tensors, quantized.matrix());
  }

  /** Multiplies the columns of a weight by what its input would have been multiplied by. */
  private void fold(LayerWork item, Tensor weight, Tensor multiplier) {
    synchronized (progress) {
      progress.warning(
          "layer '"
              + item.layer()
              + "': '"
              + multiplier.name()
              + "' is multiplied into the weight, since there is no place for it");
    }
    Encoding type = weight.dtype().encoding().orElseThrow();
    Encoding factors = multiplier.dtype().encoding().orElseThrow();
    long k = multiplier.elements();
    for (long i = 0; i < weight.elements(); i++) {
      float w = Numbers.get(type, weight.data(), i);
      float product = w * Numbers.get(factors, multiplier.data(), i % k);
      Numbers.put(type, weight.data(), i, product);
    }
  }

  private Tensor dequantized(QuantizedTensor weight, Arena arena) {
    Matrix matrix = weight.matrix();
    SafetensorsWriter.Entry entry =
        new SafetensorsWriter.Entry(
            weight.name() + WEIGHT, DType.valueOf(weight.dtype().name()), weight.shape());
    Tensor plain = allocate(entry, arena);
    backend.dequantize(matrix, 0, matrix.n(), plain.data(), weight.dtype());
    return plain;
  }

  private void keep(
      LayerWork item,
      String format,
      LayerWriter.Quantized quantized,
      Tensor before,
      LayerReport.How how) {
    ErrorMeter meter = ErrorMeter.measure(quantized.matrix(), before, backend);
    keep(item, format, quantized.tensors(), meter, before, how);
  }

  private void keep(
      LayerWork item,
      String format,
      List<Tensor> tensors,
      ErrorMeter meter,
      Tensor before,
      LayerReport.How how) {
    boolean rounded = how == LayerReport.How.QUANTIZED || how == LayerReport.How.REQUANTIZED;
    if (rounded && !meter.isFinite()) {
      throw new GatunException(
          source.path()
              + ": tensor '"
              + before.name()
              + "': found NaN or infinity, expected finite numbers");
    }
    long bytes = tensors.stream().mapToLong(t -> t.data().byteSize()).sum();
    long n =
        item instanceof LayerWork.Again again ? again.weight().matrix().n() : before.shape().get(0);
    long k = n == 0 ? 0 : before.elements() / n;
    LayerReport report = meter.report(item.layer(), n, k, item.bytes(), bytes, how, format);
    LayerWriter.Written written =
        new LayerWriter.Written(
            item.layer(),
            format,
            before.dtype(),
            before.shape(),
            tensors.stream().map(SafetensorsWriter.Entry::of).toList(),
            activationType(item));
    spool.add(written, tensors, report);
    synchronized (progress) {
      progress.advance(item.layer(), item.bytes());
      progress.layer(report);
    }
  }
}
