"use strict";
// The page's own behaviour: theme, pictures that are drawn when they come into sight, and the table of runs.
const payload = JSON.parse(document.getElementById("payload").textContent);
const root = document.documentElement;
const narrow = window.matchMedia("(max-width: 640px)");

// ---- theme: the system's, until the switch says otherwise ----
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
let chosen = null;

function applyTheme() {
  root.dataset.theme = chosen || (systemDark.matches ? "dark" : "light");
  themeButton.textContent = root.dataset.theme === "dark" ? "Light colours" : "Dark colours";
  for (const place of document.querySelectorAll(".chart.drawn")) draw(place);
}
themeButton.addEventListener("click", () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  applyTheme();
});
systemDark.addEventListener("change", applyTheme);

// ---- pictures ----
function colour(name) {
  return getComputedStyle(root).getPropertyValue("--" + name).trim();
}

function themed(value) {  // "@name" is a colour of page.css
  if (typeof value === "string") return value.startsWith("@") && value.length < 9 ? colour(value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(themed);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v)]));
  return value;
}

function draw(place) {
  const chart = themed(payload.charts[place.dataset.chart]);
  const axis = {gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true};
  const layout = {
    ...chart.layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: colour("ink"), family: "system-ui, sans-serif", size: 13},
    margin: {l: 8, r: 12, t: 12, b: 8},
    legend: narrow.matches ? {orientation: "h", y: -0.25} : {x: 1.02, y: 1},
    hoverlabel: {bgcolor: colour("card"), bordercolor: colour("muted"), font: {color: colour("ink")}},
    xaxis: {...axis, ...chart.layout.xaxis}, yaxis: {...axis, ...chart.layout.yaxis},
  };
  if (!layout.height) layout.height = narrow.matches ? 360 : 400;
  const config = {displaylogo: false, responsive: true, displayModeBar: false};
  Plotly.react(place, chart.data, layout, config);
  place.classList.add("drawn");
}

const watcher = new IntersectionObserver((seen) => {
  for (const entry of seen) if (entry.isIntersecting && !entry.target.classList.contains("drawn")) draw(entry.target);
}, {rootMargin: "400px"});
applyTheme();
document.querySelectorAll(".chart").forEach((place) => watcher.observe(place));
narrow.addEventListener("change", applyTheme);

// ---- runs ----
const PER_PAGE = 100;
const table = document.getElementById("run-table");
const body = table.tBodies[0];
const filters = document.getElementById("filters");
const heads = [...table.querySelectorAll("th[data-key]")];
const keys = heads.map((head) => head.dataset.key);
const WORDS = ["model", "size", "data", "mode", "init", "recipe", "device", "digest", "metric"];
payload.runs.forEach((run) => { run.words = WORDS.map((key) => run[key]).join(" ").toLowerCase() + ` r=${run.rank} seed=${run.seed}`; });
let sorted = {key: null, sign: 1};
let shown = payload.runs;
let first = 0;

const fixed = (digits) => (value) => value.toFixed(digits);
const FORMATS = {
  recovery: fixed(1), seconds: fixed(1), trainable: (n) => n.toLocaleString("en"),
  share: (n) => (n >= 99.95 ? Math.round(n).toLocaleString("en") : n.toPrecision(3)),
};

function text(run, key) {
  if (key === "score") return run.score_text;
  const value = run[key];
  if (value === null || value === "") return "–";
  return FORMATS[key] ? FORMATS[key](value) : String(value);
}

function compare(a, b) {  // what does not exist stands last, whichever way
  const [x, y] = [a[sorted.key], b[sorted.key]];
  const [noX, noY] = [x === null || x === "", y === null || y === ""];
  if (noX || noY) return noX - noY;
  return sorted.sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
}

function update() {
  const asked = Object.fromEntries(new FormData(filters));
  const words = asked.search.toLowerCase().split(/\s+/).filter(Boolean);
  shown = payload.runs.filter((run) =>
    words.every((word) => run.words.includes(word)) &&
    Object.entries(asked).every(([key, value]) => key === "search" || !value || String(run[key]) === value));
  if (sorted.key) shown.sort(compare);
  first = 0;
  show();
}

function cell(run, key, index) {
  const made = document.createElement(index ? "td" : "th");
  if (!index) made.scope = "row";
  if (heads[index].classList.contains("number")) made.className = "number";
  made.textContent = text(run, key);
  return made;
}

function link(label, address) {
  const made = document.createElement("a");
  made.href = address;
  made.textContent = label;
  return made;
}

function unfolded(run, id) {
  const line = document.createElement("tr");
  line.id = id;
  const inside = line.insertCell();
  inside.colSpan = keys.length + 1;
  inside.className = "config";
  const box = inside.appendChild(document.createElement("div"));
  box.append(`${run.digest}, finished ${run.finished}, commit ${run.commit || "–"}, ${run.metric}`);
  if (!run.counted) box.append(". Older row of a seed that was run again: in no mean");
  box.append(". Files: ", link("row", run.links.row));
  if (run.links.log) box.append(", ", link("log and checkpoint", run.links.log));
  const config = document.createElement("code");
  config.textContent = run.options.map((option) => payload.pool[option]).join("\n");
  box.append(config);
  return line;
}

function fold(button, run, line) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) line.nextElementSibling.remove();
  else line.after(unfolded(run, button.getAttribute("aria-controls")));
}

function rowOf(run) {
  const line = document.createElement("tr");
  if (!run.counted) line.className = "older";
  line.append(...keys.map((key, index) => cell(run, key, index)));
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "details";
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", `config-${run.digest}`);
  button.setAttribute("aria-label", `details of run ${run.digest}`);
  button.addEventListener("click", () => fold(button, run, line));
  line.insertCell().append(button);
  return line;
}

function show() {
  const last = Math.min(first + PER_PAGE, shown.length);
  body.replaceChildren(...shown.slice(first, last).map(rowOf));
  const total = payload.runs.length.toLocaleString("en");
  document.getElementById("count").textContent = shown.length ? `${shown.length.toLocaleString("en")} of ${total} runs` : `None of ${total} runs fits. “Show all” clears the filters.`;
  document.getElementById("place").textContent = shown.length ? `${first + 1}–${last} of ${shown.length.toLocaleString("en")}` : "";
  document.getElementById("previous").disabled = first === 0;
  document.getElementById("next").disabled = last >= shown.length;
}

for (const head of heads) {
  head.querySelector("button").addEventListener("click", () => {
    const again = sorted.key === head.dataset.key;
    sorted = {key: head.dataset.key, sign: again ? -sorted.sign : 1};
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
    update();
  });
}
filters.addEventListener("input", update);
filters.addEventListener("reset", () => setTimeout(update));
filters.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("previous").addEventListener("click", () => { first -= PER_PAGE; show(); });
document.getElementById("next").addEventListener("click", () => { first += PER_PAGE; show(); });
update();
