// Charts in the page's own colours; they follow the theme and are drawn at most once a second.

const colour = (name) => {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

export const PALETTE = ["#2563eb", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#65a30d"];
export const SYMBOLS = ["circle", "diamond", "triangle-up", "cross", "pentagon", "x"];

export function draw(element, traces, { x, y, shapes = [], annotations = [] }) {
  const ink = colour("--ink"), line = colour("--line");
  const axis = (title) => ({ title: { text: title }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true });
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif", size: 12 },
    margin: { l: 55, r: 15, t: 10, b: 45 }, xaxis: { ...axis(x.title), ...x }, yaxis: { ...axis(y.title), ...y },
    // The legend is above the plot and grows upwards, so that it never covers a point.
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "closest", shapes, annotations, uirevision: "keep",
    // On a phone the legend would be taller than the plot; touching a point shows its name instead.
    showlegend: traces.length > 1 && (traces.length < 8 || element.clientWidth >= 420),
  };
  layout.xaxis.title = { text: x.title };
  layout.yaxis.title = { text: y.title };
  return globalThis.Plotly.react(element, traces, layout, { displayModeBar: false, responsive: true });
}

export function onThemeChange(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
