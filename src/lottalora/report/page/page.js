"use strict";
// The page's own behaviour: theme, words under a pointer, series that hide, and the table of runs.
const payload = JSON.parse(document.getElementById("payload").textContent);
const root = document.documentElement;

// ---- theme: the system's, until the switch says otherwise ----
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
const isDark = () => (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
function nameTheme() { themeButton.textContent = isDark() ? "Light colours" : "Dark colours"; }
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
nameTheme();

// ---- pictures: each mark says its value; a series of the legend hides ----
const tip = document.getElementById("tip");
for (const title of document.querySelectorAll(".panel title")) {  // ours comes at once, and on a touch too
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
}
function say(event) {
  const mark = event.target.closest?.(".said");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const wide = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(4, Math.min(event.pageX + 12, wide - tip.offsetWidth - 8))}px`;
  tip.style.top = `${event.pageY + 16}px`;
}
document.addEventListener("pointerover", say);
document.addEventListener("pointerdown", say);
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const mark of button.closest("figure").querySelectorAll(".panel [data-series]"))
      if (mark.dataset.series === button.dataset.series) mark.classList.toggle("off", !shown);
  });
}

// ---- tables wider than the screen say so; what is folded is printed ----
function hintAtSwiping() {
  for (const box of document.querySelectorAll(".scroll")) {
    const hint = box.nextElementSibling;
    if (hint?.classList.contains("swipe")) hint.classList.toggle("needed", box.scrollWidth > box.clientWidth + 2);
  }
}
window.addEventListener("resize", hintAtSwiping);
document.addEventListener("toggle", hintAtSwiping, true);
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.dataset.folded = "";
  }
});
window.addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-folded]")) details.open = false;
});

// ---- runs ----
const PER_PAGE = 100;
const table = document.getElementById("run-table");
const body = table.tBodies[0];
const filters = document.getElementById("filters");
const heads = [...table.querySelectorAll("th[data-key]")];
const keys = heads.map((head) => head.dataset.key);
const WORDS = ["model", "size", "data", "mode", "init", "recipe", "options", "device", "digest", "metric", "state"];
const scoreText = (run, score) => (score * run.shown[0]).toFixed(run.shown[1]);
const entries = ({keys, values, rows}) => rows.map((row) => Object.fromEntries(
  keys.map((key, at) => [key, values[at] ? values[at][row[at]] : row[at]]).filter(([, value]) => value !== null)));
const lines = entries(payload.lines);
payload.runs = entries(payload.runs).map((run) => ({...lines[run.line], ...payload.made[run.made], ...run}));
payload.runs.forEach((run) => {
  const numbers = ["rank", "alpha", "seed"].filter((key) => key in run).map((key) => `${key}=${run[key]}`);
  const said = WORDS.map((key) => run[key] ?? "").join(" ").replaceAll(",", " ");
  run.words = ` ${said} ${numbers.join(" ")} r=${run.rank} `.toLowerCase();
});
const fits = (run, word) => run.words.includes(word.includes("=") ? ` ${word} ` : word);  // alpha=2 is not alpha=20
let sorted = {key: null, sign: 1};
let shown = payload.runs;
let first = 0;

const fixed = (digits) => (value) => value.toFixed(digits);
const FORMATS = {
  recovery: fixed(1), seconds: fixed(1), trainable: (n) => n.toLocaleString("en"),
  share: (n) => (n >= 99.95 ? Math.round(n).toLocaleString("en") : n.toPrecision(3)),
};

function text(run, key) {
  if (key === "score") return "score" in run ? scoreText(run, run.score) + run.shown[2] : "diverged";
  if (key === "removed") return "removed" in run ? scoreText(run, run.removed) : "–";
  const value = run[key];
  if (value === undefined) return "–";
  return FORMATS[key] ? FORMATS[key](value) : String(value);
}

function compare(a, b) {  // what does not exist stands last, whichever way; scores of one metric stay together
  const [x, y] = [a[sorted.key], b[sorted.key]];
  if (["score", "removed"].includes(sorted.key) && a.metric !== b.metric) return a.metric.localeCompare(b.metric);
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
  return sorted.sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
}

function update() {
  const asked = Object.fromEntries(new FormData(filters));
  const words = asked.search.toLowerCase().split(/\s+/).filter(Boolean);
  shown = payload.runs.filter((run) =>
    words.every((word) => fits(run, word)) &&
    Object.entries(asked).every(([key, value]) => key === "search" || !value || String(run[key] ?? "") === value));
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

function configOf(number) {
  const told = payload.configs[number];
  if (told.whole) return told.whole;
  const config = [...payload.configs[told[0]].whole];
  for (let at = 1; at < told.length; at += 2) config[told[at]] = told[at + 1];
  return config;
}

function unfolded(run, id) {
  const line = document.createElement("tr");
  line.id = id;
  const inside = line.insertCell();
  inside.colSpan = keys.length + 1;
  inside.className = "config";
  const box = inside.appendChild(document.createElement("div"));
  box.append(`${run.digest}, finished ${run.finished}, commit ${run.commit || "–"}, ${run.metric}`);
  if (run.older) box.append(". Older row of a seed that was run again: in no mean");
  const file = `${run.file[0]}s${run.seed}${run.file[1]}-${run.digest}.json`;
  box.append(". Files: ", link("row", `${payload.base}/${run.folder}/${file}`));
  if (run.log) box.append(", ", link("log and checkpoint", `${payload.base}/${run.log}/`));
  const config = document.createElement("code");
  config.textContent = configOf(run.config).map((option) => payload.pool[option]).join("\n");
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
  if (run.older) line.className = "older";
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
hintAtSwiping();
