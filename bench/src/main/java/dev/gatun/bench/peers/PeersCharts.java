package dev.gatun.bench.peers;

import dev.gatun.GatunException;
import dev.gatun.bench.Probe;
import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.imageio.ImageIO;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.Styler;
import org.knowm.xchart.style.markers.SeriesMarkers;

/** The pictures of a comparison. */
final class PeersCharts {
  private PeersCharts() {}

  /** Operations a second over operations for a byte of the weight, under the machine's limits. */
  static byte[] roofline(Peers.Result result) {
    XYChart chart =
        chart(
            "Roofline, " + result.plan().threads() + " threads",
            "operations for a byte of the weight",
            900,
            640);
    double[] span = span(result.measurements());
    result
        .peaks()
        .forEach(
            (kind, peak) -> {
              if (peak > 0 && result.readRate() > 0) {
                roof(chart, kind, peak, result.readRate(), span);
              }
            });
    Map<String, List<Measurement>> byEngine = new LinkedHashMap<>();
    for (Measurement m : result.measurements()) {
      byEngine.computeIfAbsent(m.engine(), engine -> new ArrayList<>()).add(m);
    }
    byEngine.forEach(
        (engine, all) -> {
          XYSeries series =
              chart.addSeries(
                  engine,
                  all.stream().mapToDouble(Measurement::intensity).toArray(),
                  all.stream().mapToDouble(Measurement::gflops).toArray());
          series.setXYSeriesRenderStyle(XYSeries.XYSeriesRenderStyle.Scatter);
        });
    return png(List.of(chart), 1);
  }

  /** The least and the largest number of operations for a byte. */
  private static double[] span(List<Measurement> measurements) {
    double least = measurements.stream().mapToDouble(Measurement::intensity).min().orElse(1);
    double largest = measurements.stream().mapToDouble(Measurement::intensity).max().orElse(1);
    return new double[] {least / 2, largest * 2};
  }

  private static void roof(
      XYChart chart, Probe.Peak kind, double peak, double readRate, double[] span) {
    double ridge = Math.clamp(peak / readRate, span[0], span[1]);
    double[] x = {span[0], ridge, span[1]};
    double[] y = {
      Math.min(peak, span[0] * readRate),
      Math.min(peak, ridge * readRate),
      Math.min(peak, span[1] * readRate)
    };
    XYSeries series = chart.addSeries(kind + " limit", x, y);
    series.setMarker(SeriesMarkers.NONE);
    series.setLineStyle(new BasicStroke(1.5f));
  }

  /** Operations a second over the number of rows: one chart a work. */
  static byte[] throughput(Peers.Result result) {
    List<XYChart> charts = new ArrayList<>();
    for (Work work : result.plan().works()) {
      Map<String, List<Measurement>> byEngine = new LinkedHashMap<>();
      for (Measurement m : result.measurements()) {
        if (m.work() == work) {
          byEngine.computeIfAbsent(m.engine(), engine -> new ArrayList<>()).add(m);
        }
      }
      if (!byEngine.isEmpty()) {
        XYChart chart = chart(work.description(), "M, rows of x", 640, 480);
        byEngine.forEach(
            (engine, all) ->
                chart.addSeries(
                    engine,
                    all.stream().mapToDouble(Measurement::m).toArray(),
                    all.stream().mapToDouble(Measurement::gflops).toArray()));
        charts.add(chart);
      }
    }
    return png(charts, Math.min(2, charts.size()));
  }

  private static XYChart chart(String title, String xTitle, int width, int height) {
    System.setProperty("java.awt.headless", "true");
    XYChart chart =
        new XYChartBuilder()
            .width(width)
            .height(height)
            .title(title)
            .xAxisTitle(xTitle)
            .yAxisTitle("G operations a second")
            .build();
    chart.getStyler().setXAxisLogarithmic(true);
    chart.getStyler().setYAxisLogarithmic(true);
    chart.getStyler().setLegendPosition(Styler.LegendPosition.OutsideS);
    chart.getStyler().setLegendLayout(Styler.LegendLayout.Horizontal);
    chart.getStyler().setChartBackgroundColor(Color.WHITE);
    return chart;
  }

  /** Charts of one size beside and below each other. */
  private static byte[] png(List<XYChart> charts, int columns) {
    int width = charts.getFirst().getWidth();
    int height = charts.getFirst().getHeight();
    int rows = Math.ceilDiv(charts.size(), columns);
    BufferedImage image =
        new BufferedImage(columns * width, rows * height, BufferedImage.TYPE_INT_RGB);
    Graphics2D graphics = image.createGraphics();
    graphics.setColor(Color.WHITE);
    graphics.fillRect(0, 0, image.getWidth(), image.getHeight());
    for (int i = 0; i < charts.size(); i++) {
      graphics.drawImage(
          BitmapEncoder.getBufferedImage(charts.get(i)),
          i % columns * width,
          i / columns * height,
          null);
    }
    graphics.dispose();
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try {
      ImageIO.write(image, "png", out);
    } catch (IOException e) {
      throw new GatunException("the chart could not be drawn: " + e.getMessage(), e);
    }
    return out.toByteArray();
  }
}
