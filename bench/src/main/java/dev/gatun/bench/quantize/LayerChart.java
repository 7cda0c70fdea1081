package dev.gatun.bench.quantize;

import dev.gatun.GatunException;
import dev.gatun.quantize.LayerReport;
import dev.gatun.quantize.Report;
import dev.gatun.quantize.ReportChart;
import java.awt.Color;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.ToDoubleFunction;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.Styler;

/** Signal to noise and bits of every layer, in the order of the checkpoint, a colour a format. */
public final class LayerChart implements ReportChart {
  /** Where layers without any error are drawn. */
  private static final double NO_ERROR_DB = 150;

  /** For {@link java.util.ServiceLoader}. */
  public LayerChart() {}

  @Override
  public byte[] png(Report report) {
    System.setProperty("java.awt.headless", "true");
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    List<XYChart> charts =
        List.of(
            chart(report, "signal to noise, dB", layer -> Math.min(layer.snrDb(), NO_ERROR_DB)),
            chart(
                report,
                "bits a weight",
                layer -> 8.0 * layer.bytesAfter() / ((double) layer.rows() * layer.columns())));
    try {
      BitmapEncoder.saveBitmap(charts, 2, 1, out, BitmapEncoder.BitmapFormat.PNG);
    } catch (IOException e) {
      throw new GatunException("the chart could not be drawn: " + e.getMessage(), e);
    }
    return out.toByteArray();
  }

  private static XYChart chart(Report report, String what, ToDoubleFunction<LayerReport> y) {
    XYChart chart =
        new XYChartBuilder()
            .width(960)
            .height(360)
            .title(report.files().getFirst().getFileName() + ": " + what)
            .xAxisTitle("layer, in the order of the checkpoint")
            .yAxisTitle(what)
            .build();
    chart.getStyler().setDefaultSeriesRenderStyle(XYSeries.XYSeriesRenderStyle.Scatter);
    chart.getStyler().setLegendPosition(Styler.LegendPosition.OutsideE);
    chart.getStyler().setChartBackgroundColor(Color.WHITE);
    chart.getStyler().setMarkerSize(7);
    chart.getStyler().setYAxisMin(0.0);
    Set<String> formats = new LinkedHashSet<>();
    report.layers().forEach(layer -> formats.add(layer.format()));
    for (String format : formats) {
      List<Double> xs = new ArrayList<>();
      List<Double> ys = new ArrayList<>();
      for (int i = 0; i < report.layers().size(); i++) {
        LayerReport layer = report.layers().get(i);
        if (layer.format().equals(format)) {
          xs.add(i + 1.0);
          ys.add(y.applyAsDouble(layer));
        }
      }
      chart.addSeries(format, xs, ys);
    }
    return chart;
  }
}
