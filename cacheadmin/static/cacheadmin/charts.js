// Draws the charts of a page with uPlot. Each `[data-cacheadmin-plot]` names a chart of the JSON in #cacheadmin-charts;
// legends and tables are the server's, so that a page says the same without this file.

const uPlot = window.uPlot;
const language = document.documentElement.lang || undefined;
const BARS_SHARE = 0.12; // how much of a chart's height its histogram may take

let page = { times: [], marks: [], gaps: [], charts: {} };
let drawn = []; // { name, plot, chart }
let resized = null;

const watch = new ResizeObserver(() => {
  clearTimeout(resized);
  resized = setTimeout(() => drawn.forEach(({ plot, chart }) => {
    if (plot.clientWidth !== chart.width) chart.setSize({ width: plot.clientWidth, height: plot.clientHeight });
  }), 100);
});

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (name) => token(name === "waiting" ? "--cacheadmin-waiting" : `--cacheadmin-chart-${name}`) || "#888";
const theme = (name, fallback) => token(name) || fallback;

/** Read what the server sent with the page. */
export function sent(root = document) {
  const element = root.getElementById("cacheadmin-charts");
  return element ? JSON.parse(element.textContent) : page;
}

/** Draw every chart of the page, again if it is drawn already: after new data, and when the colours change. */
export function draw(data = page) {
  const at = drawn.find(({ chart }) => chart.cursor.idx != null)?.chart.cursor.idx;
  drawn.forEach(({ chart }) => chart.destroy());
  page = data;
  document.querySelectorAll("[data-cacheadmin-figures]").forEach((details) => {
    details.open = false; // the table is folded once; what a reader opens then stays open
    details.removeAttribute("data-cacheadmin-figures");
  });
  drawn = [...document.querySelectorAll("[data-cacheadmin-plot]")].flatMap((plot) => {
    const spec = page.charts[plot.dataset.cacheadminPlot];
    if (!spec || page.times.length < 2) return [];
    plot.setAttribute("aria-label", spec.said);
    return [{ plot, spec, chart: new uPlot(options(plot, spec), [page.times, ...heights(spec)], plot) }];
  });
  if (at != null && at < page.times.length) point(at);
  watch.disconnect();
  drawn.forEach(({ plot }) => watch.observe(plot));
}

/** Lines as uPlot draws them, one over another: of those stacked the highest first. */
function order(spec) {
  const stacked = spec.lines.filter((line) => line.style === "stack");
  return [...stacked.reverse(), ...spec.lines.filter((line) => line.style !== "stack")];
}

/** How high each of them stands: a stacked one on the sum of those before it. */
function heights(spec) {
  const sums = page.times.map(() => 0);
  const high = new Map(spec.lines.filter((line) => line.style === "stack").map((line) => [
    line, line.values.map((value, t) => (value == null ? null : (sums[t] += value))),
  ]));
  return order(spec).map((line) => high.get(line) ?? line.values);
}

function options(plot, spec) {
  const font = `11px ${getComputedStyle(plot).fontFamily}`;
  const axis = { stroke: theme("--body-quiet-color", "#666"), font, ticks: { show: false } };
  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });
  const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...zone() });
  const day = new Intl.DateTimeFormat(language, { day: "numeric", month: "short", ...zone() });
  return {
    width: plot.clientWidth,
    height: plot.clientHeight,
    padding: [6, 18, 0, 0], // the last time's label is centred on the edge
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    tzDate: (seconds) => (page.zone ? uPlot.tzDate(new Date(seconds * 1000), page.zone) : new Date(seconds * 1000)),
    scales: {
      x: { time: true },
      y: { range: (u, low, high) => [0, spec.top ?? uPlot.rangeNum(0, Math.max(high ?? 0, spec.least), 0.02, true)[1]] },
      bars: { range: (u, low, high) => [0, Math.max(high, 4) / BARS_SHARE] },
    },
    axes: [
      {
        ...axis, size: 28, gap: 9, space: 90, grid: { show: false },
        values: (u, splits, i, space, step) => splits.map((s) => (step < 86400 ? clock : day).format(s * 1000)),
      },
      {
        ...axis, size: 44, space: 30, incrs: spec.unit === "%" ? [25] : undefined,
        grid: { stroke: theme("--hairline-color", "#e8e8e8"), width: 1 },
        values: (u, splits) => splits.map((s) => whole.format(s) + (spec.unit === "%" ? spec.lines[0].unit : "")),
      },
    ],
    series: [{}, ...order(spec).map(series)],
    hooks: { draw: [(u) => annotate(u, plot, font)], setCursor: [(u) => follow(u)] },
  };
}

const zone = () => (page.zone ? { timeZone: page.zone } : {});

function series(line) {
  const stroke = colour(line.colour);
  const isSparse = line.values.filter((value) => value != null).length < 20;
  const shared = { label: line.label, scale: "y", points: { show: false }, spanGaps: false };
  if (line.style === "bars") {
    return { ...shared, scale: "bars", fill: stroke, alpha: 0.65, width: 0, paths: uPlot.paths.bars({ size: [1, 12] }) };
  }
  if (line.style === "stack" && line.colour !== "hit") return { ...shared, fill: stroke, width: 0 };
  const fill = line.style === "line" || line.style === "dash" ? undefined : colour(`${line.colour}-area`);
  const points = { show: isSparse && line.style !== "stack", size: 4, fill: stroke };
  return { ...shared, points, stroke, fill, width: 1.5, dash: line.style === "dash" ? [5, 3] : undefined };
}

/** As much of a text as there is room for. */
function cut(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 0 && ctx.measureText(`${text.slice(0, end)}…`).width > room) end -= 1;
  return end > 2 ? `${text.slice(0, end)}…` : "";
}

const ROWS = [0.46, 0.57, 0.68, 0.79]; // where names may stand: below most ratios, above the histogram

/** Where a mark's name stands, beside its line and clear of those before it; without a text where there is no room. */
function place(ctx, text, x, { left, width }, taken) {
  const gap = 4 * devicePixelRatio;
  const fits = (room) => {
    const shown = cut(ctx, text, room - gap);
    return { shown, wide: ctx.measureText(shown).width, isWhole: shown === text };
  };
  const sides = [[fits(left + width - x), 1], [fits(x - left), -1]].sort(([a], [b]) => b.wide - a.wide);
  for (const isWhole of [true, false]) {
    for (const row of ROWS) {
      for (const [side, way] of sides) {
        const from = way > 0 ? x : x - side.wide - 2 * gap;
        const to = from + side.wide + 2 * gap;
        if (side.isWhole !== isWhole || !side.shown) continue;
        if (taken.some((box) => box.row === row && box.from < to && from < box.to)) continue;
        taken.push({ row, from, to });
        return { shown: side.shown, row, at: from + gap };
      }
    }
  }
  return { shown: "" };
}

/** Deploys and clears as dashed verticals, the reasons of gaps in words; names stand on the first chart only. */
function annotate(u, plot, font) {
  const { ctx } = u;
  const { left, top, width, height } = u.bbox;
  const ratio = devicePixelRatio;
  const isNamed = plot.hasAttribute("data-cacheadmin-names");
  const say = (text, x, y) => { // on a ground of its own, for lines run through it
    ctx.strokeText(text, x, y);
    ctx.fillText(text, x, y);
  };
  // What is newer than the last point stands at the edge.
  const shown = page.marks.map((mark) => ({ ...mark, x: Math.min(u.valToPos(mark.at, "x", true), left + width) }))
    .filter(({ x }) => x >= left);
  ctx.save();
  ctx.font = font.replace("11px", `${11 * ratio}px`);
  ctx.fillStyle = ctx.strokeStyle = theme("--body-quiet-color", "#666");
  ctx.lineWidth = ratio;
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  shown.forEach(({ x }) => {
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
  });
  ctx.setLineDash([]);
  ctx.strokeStyle = theme("--body-bg", "#fff");
  ctx.lineWidth = 3 * ratio;
  ctx.lineJoin = "round";
  ctx.textAlign = "left";
  const taken = [];
  if (isNamed) {
    shown.filter(({ text }) => text).reverse().forEach(({ text, x }) => { // the newest first
      const found = place(ctx, text, x, u.bbox, taken);
      if (found.shown) say(found.shown, found.at, top + height * found.row);
    });
    page.gaps.forEach(({ from, to, text }) => {
      const wide = ctx.measureText(text).width;
      const middle = (u.valToPos(from, "x", true) + u.valToPos(to, "x", true)) / 2;
      say(text, Math.min(Math.max(middle - wide / 2, left), left + width - wide), top + height * 0.36);
    });
  }
  ctx.restore();
}

/** What the marks under the pointer say in full. */
function tell(u) {
  const edge = u.over.clientWidth;
  const near = page.marks.filter(({ at }) => Math.abs(Math.min(u.valToPos(at, "x"), edge) - u.cursor.left) < 5);
  u.over.title = near.map(({ told }) => told).join("\n");
}

/** One cursor over all charts: where one of them is pointed at, the others' follows and the legends say the values. */
let isFollowing = false;
function follow(u) {
  if (isFollowing || !drawn.some(({ chart }) => chart === u)) return;
  tell(u);
  point(u.cursor.left < 0 ? null : u.cursor.idx, u);
}

function point(at, source) {
  isFollowing = true;
  drawn.forEach(({ plot, spec, chart }) => {
    if (chart !== source) {
      chart.setCursor(at == null ? { left: -10, top: -10 } : { left: chart.valToPos(page.times[at], "x"), top: 1 });
    }
    const number = new Intl.NumberFormat(language, { maximumFractionDigits: spec.digits });
    plot.closest("figure").querySelectorAll("[data-cacheadmin-value]").forEach((place) => {
      const line = spec.lines[place.dataset.cacheadminValue];
      const value = at == null ? null : line?.values[at];
      place.dataset.cacheadminLatest ??= place.textContent;
      place.textContent = at == null ? place.dataset.cacheadminLatest : value == null ? "–" : number.format(value) + line.unit;
    });
  });
  isFollowing = false;
}

function step(event) {
  const last = page.times.length - 1;
  const now = drawn[0]?.chart.cursor.idx ?? last;
  const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null }[event.key];
  if (to === undefined || !event.target.closest("[data-cacheadmin-plot]")) return;
  event.preventDefault();
  point(to === null ? null : Math.max(0, Math.min(to, last)));
}

/** Draw the page's charts now, and again on another theme or width. */
export function start() {
  document.documentElement.classList.add("cacheadmin-drawn");
  draw(sent());
  document.addEventListener("keydown", step);
  new MutationObserver(() => draw()).observe(document.documentElement, { attributeFilter: ["data-theme", "class"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
}
