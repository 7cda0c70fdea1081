package dev.gatun.quantize;

import dev.gatun.Tensor;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Keeps quantized tensors on disk until every size is known and the checkpoint can be laid out: the
 * container's order puts all tensors of one type together. Lies in the output's directory and is
 * gone when it is closed.
 */
final class Spool implements AutoCloseable {
  private record Kept(SafetensorsWriter.Entry entry, long position) {}

  private final OutputFile file;
  private final List<Kept> kept = new ArrayList<>();
  private long size;

  private Spool(OutputFile file) {
    this.file = file;
  }

  static Spool create(Path target) {
    return new Spool(OutputFile.create(target));
  }

  void add(Tensor tensor) {
    kept.add(new Kept(SafetensorsWriter.Entry.of(tensor), size));
    file.write(size, tensor.data());
    size += tensor.data().byteSize();
  }

  List<SafetensorsWriter.Entry> entries() {
    return kept.stream().map(Kept::entry).toList();
  }

  void writeTo(TensorFileWriter writer) {
    for (Kept tensor : kept) {
      file.read(
          tensor.position,
          tensor.entry.byteSize(),
          (offset, piece) -> writer.write(tensor.entry.name(), offset, piece));
    }
  }

  @Override
  public void close() {
    file.close();
  }
}
