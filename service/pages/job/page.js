import { PALETTE, SYMBOLS, draw, onThemeChange } from "../static/chart.js";
import { follow, throttled } from "../static/live.js";

const { id, since, costLabel, costUnit, objective, objectiveLabel, factor, goal, score, scoreLabel, scoreUnit, scoreFactor } = document.getElementById("job").dataset;
let { cost: key, device } = document.getElementById("job").dataset;
const onLatency = key.startsWith("latency_ms");
const evaluations = [];
const FINAL = ["succeeded", "failed", "cancelled"];
let job = null;
let own = null; // ids on the front of the chart's device, if the job has several devices

async function load() {
  const answer = await fetch(`/api/v1/jobs/${id}`);
  if (answer.ok) job = await answer.json();
  for (;;) {
    const last = evaluations.at(-1)?.number ?? 0;
    const page = await (await fetch(`/api/v1/jobs/${id}/evaluations?since=${last}&page_size=500`)).json();
    evaluations.push(...page.items);
    if (page.items.length < 500) break;
  }
  if (onLatency && job?.targets.length > 1) {
    const front = await (await fetch(`/api/v1/jobs/${id}/front?device=${device}&page_size=500`)).json();
    own = new Set(front.items.map((e) => e.id));
  }
}

const points = () => evaluations.filter((e) => e.searched && e.status === "completed" && key in e.metrics && score in e.metrics);
const scored = (metrics) => `${scoreUnit === "%" ? (scoreFactor * metrics[score]).toFixed(2) : +(scoreFactor * metrics[score]).toPrecision(4)} ${scoreUnit}`.trimEnd();
const text = (e) => `#${e.number} ${e.strategy}, ${e.fidelity}<br>${scored(e.metrics)}, ${+e.metrics[key].toPrecision(4)} ${costUnit}`;

function byStrategy(done) {
  return [...new Set(done.map((e) => e.strategy))].map((name, i) => {
    const own = done.filter((e) => e.strategy === name);
    return {
      name, mode: "markers", type: "scatter", x: own.map((e) => e.metrics[key]), y: own.map((e) => scoreFactor * e.metrics[score]),
      text: own.map(text), hoverinfo: "text", customdata: own.map((e) => e.number),
      marker: { color: PALETTE[i % PALETTE.length], size: 9, symbol: own.map((e) => SYMBOLS[i % SYMBOLS.length] + (e.feasible ? "" : "-open")) },
    };
  });
}

// Evaluations that no other one of their kind (trained or not) beats; the server says which.
function frontsOf(done) {
  return [...new Set(done.map((e) => e.fidelity))].map((fidelity) => {
    const front = done.filter((e) => (own ? own.has(e.id) : e.on_front) && e.fidelity === fidelity).sort((a, b) => a.metrics[key] - b.metrics[key]);
    return { name: `front, ${fidelity}`, mode: "lines", type: "scatter", line: { shape: "hv", dash: "dot", color: fidelity === "F4" ? "#2563eb" : "#16a34a" }, hoverinfo: "skip",
      x: front.map((e) => e.metrics[key]), y: front.map((e) => scoreFactor * e.metrics[score]) };
  });
}

function landmarks() {
  const wanted = [["original", "square"], ["control", "square-open"], ["best", "star"], ["nearest", "star-open"]];
  return wanted.filter(([name]) => job?.[name]).map(([name, symbol]) => {
    const found = job[name], time = found.latency_ms?.[device] ?? {};
    const x = onLatency ? time.measured ?? time.predicted : found.metrics[key];
    return { name: `${name}${time.measured ? ", measured" : ""}`, mode: "markers", type: "scatter", x: [x], y: [scoreFactor * found[score]],
      marker: { symbol, size: 14, color: name === "best" ? "#16a34a" : "#78716c" }, hoverinfo: "name+x+y" };
  }).filter((trace) => trace.x[0] != null && Number.isFinite(trace.y[0]));
}

function limit() {
  const target = job?.targets.find((each) => each.device === device);
  if (!onLatency || !target) return null;
  const original = job.original?.latency_ms?.[device];
  return target.max_latency_ms ?? (original?.measured ? target.max_latency_ratio * original.measured : null);
}

// A share ends at 100 %, whatever room Plotly leaves around the points.
const ceiling = (unit) => (unit === "%" ? { autorangeoptions: { maxallowed: 100 } } : {});

function drawFront() {
  const done = points(), bound = limit();
  const shapes = bound ? [{ type: "line", x0: bound, x1: bound, yref: "paper", y0: 0, y1: 1, line: { color: "#dc2626", dash: "dash", width: 1.5 } }] : [];
  const annotations = bound ? [{ x: bound, yref: "paper", y: 1, yanchor: "top", xanchor: "left", text: " limit", showarrow: false, font: { color: "#dc2626" } }] : [];
  return draw(document.getElementById("front"), [...byStrategy(done), ...frontsOf(done), ...landmarks()],
    { x: { title: onLatency ? "latency, ms (predicted; stars measured)" : `${costLabel}${costUnit && `, ${costUnit}`}` }, y: { title: `${scoreLabel}${scoreUnit && `, ${scoreUnit}`}`, ...ceiling(scoreUnit) }, shapes, annotations });
}

// An empty chart has no axes, only a note.
const nothing = () => ({
  x: { visible: false, showgrid: false, showticklabels: false, range: [0, 1] }, y: { visible: false, showgrid: false, showticklabels: false, range: [0, 1] },
  annotations: [{ text: FINAL.includes(job?.state) ? "No evaluation of the search was within the limits." : "No evaluation is within the limits yet.",
    xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, font: { size: 14 } }],
});

function drawBest() {
  let best = null;
  const better = (value) => (best = best === null ? value : goal === "max" ? Math.max(best, value) : Math.min(best, value));
  const steps = points().filter((e) => e.feasible && objective in e.metrics).map((e) => ({ n: e.number, best: better(factor * e.metrics[objective]) }));
  return draw(document.getElementById("best"),
    [{ name: "best so far", mode: "lines+markers", type: "scatter", line: { shape: "hv", color: "#16a34a" }, x: steps.map((s) => s.n), y: steps.map((s) => s.best) }],
    steps.length ? { x: { title: "evaluation", rangemode: "tozero" }, y: objective === score ? { title: `${scoreLabel} in the search${scoreUnit && `, ${scoreUnit}`}`, ...ceiling(scoreUnit) } : { title: objectiveLabel } } : nothing());
}

function select(number) {
  for (const row of document.querySelectorAll("#evaluations tr[aria-selected]")) row.removeAttribute("aria-selected");
  const row = document.getElementById(`evaluation-${number}`);
  row?.setAttribute("aria-selected", "true");
  row?.scrollIntoView({ block: "nearest" });
  history.replaceState(null, "", `${location.pathname}?evaluation=${number}`);
}

const redraw = async () => { await load(); await drawFront(); await drawBest(); };

await new Promise((ready) => (globalThis.Plotly ? ready() : addEventListener("DOMContentLoaded", ready, { once: true })));
await redraw();
document.getElementById("front").on("plotly_click", (event) => {
  const number = event.points[0]?.customdata;
  if (number !== undefined) select(number);
});
const chosen = new URLSearchParams(location.search).get("evaluation");
if (chosen) select(chosen);
onThemeChange(() => { drawFront(); drawBest(); });

const choice = document.getElementById("device");
choice?.addEventListener("change", () => {
  device = choice.value;
  key = `latency_ms@${device}`;
  redraw();
});

const again = throttled(redraw);
follow(`job:${id}`, since, ["job.state", "job.progress", "evaluation.added", "front.changed", "log.line"], (type) => {
  if (type !== "log.line" && type !== "job.progress") again();
});

document.getElementById("head").addEventListener("click", async (event) => {
  const verb = event.target.dataset?.steer;
  if (!verb) return;
  if (verb === "cancel" && !confirm("Cancel this job? Its evaluations so far are kept.")) return;
  event.target.disabled = true;
  const headers = verb === "retry" ? { "Idempotency-Key": crypto.randomUUID() } : {};
  const answer = await fetch(`/api/v1/jobs/${id}/${verb}`, { method: "POST", headers });
  const body = await answer.json();
  if (answer.ok && verb === "retry") location.assign(`/jobs/${body.id}`);
  const note = document.getElementById("steered");
  note.textContent = answer.ok ? "" : body.detail;
  note.hidden = answer.ok;
  event.target.disabled = false;
});
