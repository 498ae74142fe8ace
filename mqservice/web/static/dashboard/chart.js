// A chart that moves: two minutes live, an hour, a day. What was comes from the API, what is from the stream.
import { api } from "./api.js";
import { rate } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { language, t } from "./i18n.js";
import { state } from "./store.js";

const RANGES = ["2m", "1h", "24h"];
const LIVE_S = 120;
const MINUTE_MS = 60_000;
const SERIES = [["in_per_s", "--blue"], ["done_per_s", "--green"], ["failed_per_s", "--red"]];

let library;
function uPlot() {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: "/static/dashboard/vendor/uPlot.iife.min.js", onload: () => resolve(window.uPlot), onerror: reject });
    document.head.append(script);
  });
  return library;
}

// Canvas wants a colour, not a role: an element knows what the role is at present.
function colour(role) {
  const probe = document.documentElement.appendChild(document.createElement("i"));
  probe.style.color = `var(${role})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function options(width) {
  const soft = colour("--soft");
  const line = colour("--line");
  const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const time = (_, splits, __, ___, step) => splits.map((s) => new Date(s * 1000).toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit", ...(step < 60 && { second: "2-digit" }), hourCycle: "h23" }));
  return {
    width,
    height: 180,
    padding: [8, 28, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.1, 2)] } },
    axes: [{ ...axis, space: 90, size: 28, values: time }, { ...axis, size: 52, values: (_, splits) => splits.map(rate) }],
    series: [{}, ...SERIES.map(([, role], at) => ({ stroke: colour(role), width: 2, points: { show: false }, ...(at === 2 && { dash: [4, 3] }) }))],
  };
}

// Each step stands at its end: there it is what the live numbers said, the mean of the seconds before.
const columns = (stats) => [stats.at_ms.map((ms) => ms / 1000 + stats.step_s), ...SERIES.map(([name]) => stats[name])];

// Adds the present to what is shown, and lets go of what is older than the range.
function push(data, at_s, rates) {
  if (at_s <= data[0].at(-1)) return;
  data[0].push(at_s);
  SERIES.forEach(([name], at) => data[at + 1].push(rates[name]));
  while (data[0][0] < at_s - LIVE_S) for (const column of data) column.shift();
}

// `path`: where the statistics are; `rates`: those of now.
export function Chart({ path, rates }) {
  const [range, setRange] = useState("2m");
  const holder = useRef();
  const plot = useRef();
  const data = useRef([[], [], [], []]);
  const draw = () => plot.current?.setData(data.current);
  const at_ms = state.numbers?.at_ms;

  useEffect(() => {
    let gone = false;
    const load = async () => {
      const stats = await api("GET", `${path}?range=${range}`).catch(() => null);
      if (gone || !stats) return;
      data.current = columns(stats);
      if (range === "2m") for (const column of data.current) column.pop(); // the step that is not over yet
      draw();
    };
    data.current = [[], [], [], []];
    load();
    const again = range === "2m" ? 0 : setInterval(load, MINUTE_MS);
    return () => {
      gone = true;
      clearInterval(again);
    };
  }, [path, range]);

  useEffect(() => {
    const element = holder.current;
    let gone = false;
    const make = async () => {
      const Plot = await uPlot();
      if (gone) return;
      plot.current?.destroy();
      plot.current = new Plot(options(element.clientWidth), data.current, element);
    };
    make();
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: 180 }));
    sized.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    addEventListener("recolour", make);
    return () => {
      gone = true;
      sized.disconnect();
      dark.removeEventListener("change", make);
      removeEventListener("recolour", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);

  useEffect(() => {
    if (!rates || range !== "2m") return;
    push(data.current, at_ms / 1000, rates);
    draw();
  }, [at_ms]);

  return html`<section class="card">
    <div class="head">
      <h2>${t("throughput")}</h2>
      <ul class="legend">${SERIES.map(([name, role]) => html`<li><i class=${role.slice(2)}></i>${t(name)} <b>${rates ? rate(rates[name]) : "–"}</b></li>`)}</ul>
      <div class="segments" role="group" aria-label=${t("range")}>
        ${RANGES.map((name) => html`<button type="button" aria-pressed=${String(name === range)} onClick=${() => setRange(name)}>${t(`range.${name}`)}</button>`)}
      </div>
    </div>
    <div class="chart" ref=${holder} role="img" aria-label=${t("chart-label", { range: t(`range.${range}`) })}></div>
  </section>`;
}
