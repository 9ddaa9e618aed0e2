import { draw, onThemeChange } from "../static/chart.js";
import { follow } from "../static/live.js";

const chart = document.getElementById("chart");

function show() {
  const points = JSON.parse(chart.dataset.points);
  return draw(chart, [{
    type: "scatter", mode: "lines+markers", name: "measured", line: { color: "#16a34a", width: 1 }, marker: { size: 6 },
    x: points.map((p) => p.channels), y: points.map((p) => p.latency_us),
    error_y: { type: "data", array: points.map((p) => p.sigma_us), thickness: 1 },
  }], { x: { title: chart.dataset.axis }, y: { title: "latency of the block, us", rangemode: "tozero" } });
}

if (chart) {
  await new Promise((ready) => (globalThis.Plotly ? ready() : addEventListener("DOMContentLoaded", ready, { once: true })));
  await show();
  onThemeChange(show);
  document.getElementById("curve").addEventListener("change", (event) => event.target.form.submit());
}

const { id, since } = document.getElementById("device").dataset;
follow(`device:${id}`, since, ["device.state", "table.filled"]);
