"use strict";
// Text of models and data enters the document as text nodes and attribute values only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters"), scroll = document.getElementById("scroll"), rows = document.getElementById("rows");
const detail = document.getElementById("detail");
const ROW = 50; // pixels, as in the style
const COLUMNS = ["official", "ours", "judge"];
const DEFAULTS = { benchmark: "", group: "", official: "", ours: "", judge: "", disagree: "", truncated: "", text: "", id: "" };
const questions = data.questions.map(([benchmark, id, begins, verdicts, tokens, truncated, disagree, groups]) =>
  ({ benchmark, id, begins, verdicts, tokens, truncated, disagree, groups }));
const counters = data.benchmarks.map(() => 0);
for (const question of questions) question.place = counters[question.benchmark]++; // among those of its benchmark
const byId = new Map(questions.map((question) => [question.id, question]));
let shown = [];

function element(tag, className, ...content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...content.filter((part) => part !== null && part !== undefined).map((part) => part instanceof Node ? part : String(part)));
  return node;
}

// ---- state: the location's hash, so that a view can be linked to ----
function readState() {
  const hash = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, hash.get(name) ?? value]));
}

function writeState(change) {
  const state = { ...readState(), ...change }, hash = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== DEFAULTS[name]) hash.set(name, value);
  location.hash = hash;
}

// ---- scores ----
function limited(benchmark) {
  return benchmark.limited ? element("span", "limited", "LIMITED") : null;
}

function scoreCell(benchmark, column) {
  if (!benchmark.metrics[column]) return element("td", "", "–");
  const [, value, interval] = benchmark.metrics[column][0];
  return element("td", "", element("b", "", value), " ", element("small", "", interval), limited(benchmark));
}

function drawScores(state) {
  const judged = data.benchmarks.some((benchmark) => benchmark.metrics.judge), columns = judged ? COLUMNS : COLUMNS.slice(0, 2);
  const head = element("tr", "", ...["benchmark", ...columns, "n", "truncated", "unparsed", ...data.cited].map((name) => element("th", "", name)));
  const body = data.benchmarks.map((benchmark) => {
    const published = new Map(benchmark.published.map(([name, text, model]) => [name, [text, model]]));
    const row = element("tr", benchmark.name === state.benchmark ? "chosen" : "", element("td", "", benchmark.title),
      ...columns.map((column) => scoreCell(benchmark, column)), element("td", "", benchmark.n),
      element("td", "", benchmark.counts.truncated), element("td", "", benchmark.counts.unparsed),
      ...data.cited.map((name) => {
        const cell = element("td", "cited", published.get(name)?.[0] ?? "–");
        cell.title = published.get(name)?.[1] ?? "";
        return cell;
      }));
    row.addEventListener("click", () => writeState({ benchmark: benchmark.name === state.benchmark ? "" : benchmark.name, group: "", id: "" }));
    return row;
  });
  document.getElementById("scores").replaceChildren(element("thead", "", head), element("tbody", "", ...body));
  const benchmark = data.benchmarks.find((candidate) => candidate.name === state.benchmark);
  document.getElementById("about").replaceChildren(...(benchmark ? [about(benchmark)] : []));
}

// What is known of one benchmark: its own metrics, its groups, its settings and counts.
function about(benchmark) {
  const columns = Object.keys(benchmark.metrics), names = [...new Set(Object.values(benchmark.metrics).flat().map(([name]) => name))];
  const blocks = names.length < 2 ? [] : [plainTable(["metric", ...columns], names.map((name) => [name, ...columns.map((column) =>
    benchmark.metrics[column].find(([other]) => other === name)?.slice(1).join(" ") ?? "–")]))];
  for (const [key, values] of Object.entries(benchmark.groups)) {
    if (Object.keys(values).length) blocks.push(plainTable([key.replaceAll("_", " "), "n", "official", "ours"], values));
  }
  const facts = [...benchmark.settings, ...Object.entries(benchmark.counts), ["tokens: mean", benchmark.tokens.mean],
    ["tokens: quartiles", benchmark.tokens.quartiles.join(", ")], ["tokens: longest", benchmark.tokens.max]];
  const list = element("dl", "", ...facts.flatMap(([name, value]) => [element("dt", "", name.replaceAll("_", " ")), element("dd", "", value)]));
  if (benchmark.limited) list.prepend(element("dt", "", limited(benchmark)), element("dd", "", `all numbers here: ${benchmark.n} questions`));
  return element("div", "about", ...blocks.map((block) => element("div", "block", block)), element("div", "block", list));
}

function plainTable(names, lines) {
  const head = element("tr", "", ...names.map((name) => element("th", "", name)));
  return element("table", "", element("thead", "", head),
    element("tbody", "", ...lines.map((line) => element("tr", "", ...line.map((cell) => element("td", "", cell))))));
}

// ---- filters ----
function matches(question, state) {
  const benchmark = data.benchmarks[question.benchmark];
  if (state.benchmark && benchmark.name !== state.benchmark) return false;
  if (state.group) {
    const at = state.group.indexOf("="), place = benchmark.keys.indexOf(state.group.slice(0, at));
    if (place < 0 || question.groups[place] !== state.group.slice(at + 1)) return false;
  }
  if (COLUMNS.some((column, place) => state[column] && !state[column].includes(question.verdicts[place]))) return false;
  if (state.disagree && !question.disagree || state.truncated && !question.truncated) return false;
  const text = state.text.toLowerCase();
  return !text || question.id.toLowerCase().includes(text) || question.begins.toLowerCase().includes(text);
}

function drawFilters(state) {
  const benchmark = data.benchmarks.findIndex((candidate) => candidate.name === state.benchmark);
  const values = benchmark < 0 ? [] : data.benchmarks[benchmark].keys.flatMap((key, place) =>
    [...new Set(questions.filter((question) => question.benchmark === benchmark).map((question) => question.groups[place]))]
      .filter((value) => value !== "").sort((a, b) => a.localeCompare(b, "en", { numeric: true })).map((value) => `${key}=${value}`));
  form.elements.group.replaceChildren(new Option("any", ""), ...values.map((value) => new Option(value.replace("=", ": "), value)));
  document.getElementById("by").hidden = !values.length;
  for (const name of Object.keys(DEFAULTS)) {
    const control = form.elements[name];
    if (!control) continue;
    if (control.type === "checkbox") control.checked = state[name] !== "";
    else if (control.value !== state[name]) control.value = state[name];
  }
}

// ---- the list: only the rows in sight are in the document ----
function drawRows() {
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - 5), last = Math.min(shown.length, first + Math.ceil(scroll.clientHeight / ROW) + 10);
  const id = readState().id || shown[0]?.id;
  rows.replaceChildren(...shown.slice(first, last).map((question, place) => {
    const dots = COLUMNS.map((column, at) => {
      const code = question.verdicts[at], dot = code === "-" ? null : element("i", `dot ${code}`);
      if (dot) dot.title = column;
      return dot;
    });
    const facts = element("span", "facts", ...dots, element("span", "id", question.id), `${question.tokens} tokens${question.truncated ? ", cut off" : ""}`);
    const row = element("div", question.id === id ? "row chosen" : "row", element("span", "begins", question.begins || "(in the image)"), facts);
    row.style.top = `${(first + place) * ROW}px`;
    row.addEventListener("click", () => writeState({ id: question.id }));
    return row;
  }));
}

function drawList(state) {
  shown = questions.filter((question) => matches(question, state));
  rows.style.height = `${shown.length * ROW}px`;
  const right = shown.filter((question) => question.verdicts[0] === "r").length;
  document.getElementById("summary").textContent = `${shown.length} of ${questions.length} questions`
    + (shown.length ? `, ${(100 * right / shown.length).toFixed(1)} % right by the official rules` : "");
  drawRows();
}

function keepInSight(place) {
  if (place * ROW < scroll.scrollTop) scroll.scrollTop = place * ROW;
  else if ((place + 1) * ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = (place + 1) * ROW - scroll.clientHeight;
}

// ---- one question, whose texts are loaded when it is opened ----
const chunks = new Map();

function loaded([benchmark, number, texts]) { // what the files of texts call
  chunks.set(`${benchmark}.${number}`, texts);
  drawDetail();
}

function drawDetail() {
  const question = byId.get(readState().id) ?? shown[0];
  if (!question) return detail.replaceChildren(element("p", "empty", "No question matches the filters."));
  const benchmark = data.benchmarks[question.benchmark], number = Math.floor(question.place / data.chunk), key = `${benchmark.name}.${number}`;
  if (chunks.has(key)) return showQuestion(question, benchmark, chunks.get(key)[question.place % data.chunk]);
  detail.replaceChildren(element("p", "empty", "loading"));
  const script = document.createElement("script");
  script.src = `${data.folder}/${key}.js`;
  const lost = `${data.folder}/${key}.js is not there: the folder belongs beside this page.`;
  script.addEventListener("error", () => detail.replaceChildren(element("p", "empty", lost)));
  document.head.append(script);
}

function showQuestion(question, benchmark, texts) {
  const images = element("div", "images", ...texts.images.map((name) => {
    const image = element("img");
    image.loading = "lazy";
    image.src = `${data.folder}/${name}`;
    image.alt = "image of the question";
    return image;
  }));
  const groups = benchmark.keys.map((key, place) => question.groups[place] && `${key.replaceAll("_", " ")}: ${question.groups[place]}`).filter(Boolean);
  const answer = element("div"), draws = element("div", "draws", ...texts.answers.map((one) => {
    const button = element("button", "", one.drawn === null ? "greedy" : `sample ${one.drawn + 1}`, " ", badge(one.columns.official[0]));
    button.type = "button";
    button.addEventListener("click", () => showAnswer(one));
    return button;
  }));
  function showAnswer(one) {
    [...draws.children].forEach((button, place) => button.setAttribute("aria-pressed", texts.answers[place] === one));
    answer.replaceChildren(verdicts(one), response(one));
  }
  if (texts.answers.length < 2) draws.hidden = true;
  showAnswer(texts.answers[0]);
  const gold = element("p", "groups", "gold: ", element("b", "", texts.golds.join(" or ")));
  const asked = element("div", "asked", images, element("div", "", element("p", "prompt", texts.prompt), gold));
  detail.replaceChildren(element("h2", "", question.id), element("p", "groups", groups.join(" · ")), asked, draws, answer, overlay(texts));
  detail.scrollTop = 0;
}

function badge(verdict) {
  return element("span", `badge ${verdict}`, verdict);
}

function verdicts(one) {
  const lines = COLUMNS.filter((column) => one.columns[column]).map((column) => {
    const [verdict, found] = one.columns[column];
    return element("tr", "", element("td", "", column), element("td", "", badge(verdict)), element("td", "answer", found ?? "–"));
  });
  const facts = element("tr", "", element("td", "", "length"), element("td", "", `${one.tokens} tokens`),
    element("td", "", one.truncated ? element("span", "badge odd", "truncated") : null,
      one.disagree ? element("span", "badge odd", "columns disagree") : null));
  return element("table", "verdicts", element("tbody", "", ...lines, facts));
}

function response(one) {
  const end = one.text.lastIndexOf("</think>"), at = end < 0 ? 0 : end + "</think>".length;
  return element("div", "response", element("span", "thought", one.text.slice(0, at)), one.text.slice(at));
}

function overlay(texts) {
  const image = element("img"), box = element("div", "overlay", element("p", "", "Attention of the question's text to each piece of the image:"), image);
  image.loading = "lazy";
  image.alt = "attention laid over the image";
  const command = element("p", "", "No attention overlay of this question yet. This makes it: ", element("code", "", texts.hint));
  image.addEventListener("error", () => box.replaceChildren(command));
  image.src = texts.overlay;
  return texts.images.length ? box : element("div");
}

// ---- start ----
function draw() {
  const state = readState();
  drawScores(state);
  drawFilters(state);
  drawList(state);
  const place = shown.findIndex((question) => question.id === state.id);
  if (place >= 0) keepInSight(place);
  drawDetail();
}

form.elements.benchmark.append(new Option("all", ""), ...data.benchmarks.map((benchmark) => new Option(benchmark.title, benchmark.name)));
document.getElementById("judged").hidden = !data.benchmarks.some((benchmark) => benchmark.metrics.judge);
document.getElementById("date").textContent = data.date;
form.addEventListener("input", (event) => {
  const control = event.target, value = control.type === "checkbox" ? (control.checked ? "1" : "") : control.value;
  scroll.scrollTop = 0;
  writeState({ [control.name]: value, id: "", ...(control.name === "benchmark" ? { group: "" } : {}) });
});
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("reset").addEventListener("click", () => writeState(DEFAULTS));
scroll.addEventListener("scroll", drawRows);
addEventListener("resize", drawRows);
addEventListener("hashchange", draw);
addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  if (!step || ["INPUT", "SELECT"].includes(event.target.tagName) || !shown.length) return;
  event.preventDefault();
  const place = shown.findIndex((question) => question.id === readState().id);
  const next = Math.min(shown.length - 1, Math.max(0, (place < 0 ? 0 : place) + step));
  writeState({ id: shown[next].id });
});
draw();
