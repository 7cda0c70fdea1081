package dev.gatun.cli;

import dev.gatun.quantize.LayerReport;
import dev.gatun.quantize.ProgressListener;
import java.io.PrintWriter;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/**
 * A bar on standard error when that is a terminal, and warnings. Whether it is one cannot be asked
 * of the JVM; the launcher says so with the system property {@code gatun.terminal}.
 */
final class Progress implements ProgressListener, AutoCloseable {
  private static final int WIDTH = 80;
  private static final long UNIT = 1 << 20;

  private final String task;
  private final PrintWriter err;
  private @Nullable ProgressBar bar;
  private long done;

  Progress(String task, PrintWriter err) {
    this.task = task;
    this.err = err;
  }

  @Override
  public void start(long totalBytes) {
    if (Boolean.getBoolean("gatun.terminal")) {
      bar =
          new ProgressBarBuilder()
              .setTaskName(task)
              .setInitialMax(Math.ceilDiv(totalBytes, UNIT))
              .setUnit(" MiB", 1)
              .setStyle(ProgressBarStyle.ASCII)
              .setConsumer(new ConsoleProgressBarConsumer(System.err, WIDTH))
              .setUpdateIntervalMillis(100)
              .build();
    }
  }

  @Override
  public void advance(String name, long bytes) {
    done += bytes;
    if (bar != null) {
      bar.stepTo(done / UNIT);
    }
  }

  @Override
  public void layer(LayerReport report) {}

  @Override
  public void warning(String line) {
    err.println("gatun: warning: " + line);
    err.flush();
  }

  @Override
  public void close() {
    if (bar != null) {
      bar.close();
    }
  }
}
