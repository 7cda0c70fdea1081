package dev.gatun.bench.demo;

import dev.gatun.GatunException;
import java.awt.Color;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.function.ToDoubleFunction;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.Styler;
import org.knowm.xchart.style.markers.SeriesMarkers;

/** The demo's picture: error against size, and error against speed. */
final class DemoChart {
  /** Errors below it are drawn there: floats tell no less apart. */
  private static final double LEAST_ERROR = 1e-8;

  private DemoChart() {}

  /** The picture as the bytes of a PNG file. */
  static byte[] png(Demo.Result result) {
    System.setProperty("java.awt.headless", "true");
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try {
      BitmapEncoder.saveBitmap(
          List.of(sizes(result), speeds(result)), 1, 2, out, BitmapEncoder.BitmapFormat.PNG);
    } catch (IOException e) {
      throw new GatunException("the chart could not be drawn: " + e.getMessage(), e);
    }
    return out.toByteArray();
  }

  private static XYChart sizes(Demo.Result result) {
    XYChart chart = chart("Error against size", "MiB of the checkpoint");
    for (FormatResult format : result.formats()) {
      add(chart, format.format().label(), List.of(format), FormatResult::mib);
    }
    return chart;
  }

  private static XYChart speeds(Demo.Result result) {
    XYChart chart =
        chart("Error against speed", "sentences a second, " + result.threads() + " threads");
    for (String backend : Demo.BACKENDS) {
      List<FormatResult> ran =
          result.formats().stream().filter(format -> format.runs().containsKey(backend)).toList();
      if (!ran.isEmpty()) {
        add(chart, backend, ran, format -> format.runs().get(backend).rate());
      }
    }
    FormatResult original = result.formats().getFirst();
    XYSeries series =
        chart.addSeries(
            "ONNX Runtime, f32", new double[] {original.onnxRate()}, new double[] {LEAST_ERROR});
    series.setMarker(SeriesMarkers.DIAMOND);
    return chart;
  }

  private static XYChart chart(String title, String xTitle) {
    XYChart chart =
        new XYChartBuilder()
            .width(640)
            .height(480)
            .title(title)
            .xAxisTitle(xTitle)
            .yAxisTitle("1 − mean cosine with the original")
            .build();
    chart.getStyler().setDefaultSeriesRenderStyle(XYSeries.XYSeriesRenderStyle.Scatter);
    chart.getStyler().setXAxisMin(0.0);
    chart.getStyler().setYAxisLogarithmic(true);
    chart.getStyler().setYAxisMin(LEAST_ERROR / 2);
    chart.getStyler().setYAxisMax(0.1);
    chart.getStyler().setLegendPosition(Styler.LegendPosition.OutsideS);
    chart.getStyler().setLegendLayout(Styler.LegendLayout.Horizontal);
    chart.getStyler().setChartBackgroundColor(Color.WHITE);
    chart.getStyler().setMarkerSize(10);
    return chart;
  }

  private static void add(
      XYChart chart, String name, List<FormatResult> formats, ToDoubleFunction<FormatResult> x) {
    List<Double> xs = new ArrayList<>();
    List<Double> ys = new ArrayList<>();
    for (FormatResult format : formats) {
      xs.add(x.applyAsDouble(format));
      ys.add(Math.max(LEAST_ERROR, 1 - format.cosines().mean()));
    }
    chart.addSeries(name, xs, ys);
  }
}
