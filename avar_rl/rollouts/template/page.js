"use strict";
// Text of the record enters the document as text nodes and attribute values only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
// What tokens can be coloured by: its name in the record, its colour, and that of values below 0 where there are some.
const MEASURES = {
  image: { field: "image_mass", label: "image mass", colour: [37, 87, 214] },
  system: { field: "system_mass", label: "system mass", colour: [180, 83, 9] },
  region: { field: "region_mass", label: "evidence mass", colour: [15, 118, 110] },
  dependence: { field: "dependence", label: "dependence", unit: " nats", colour: [27, 120, 55], below: [136, 34, 150] },
  weight: { field: "weight", label: "weight", colour: [190, 24, 93] },
  entropy: { field: "entropy", label: "entropy", unit: " nats", colour: [71, 85, 105] },
};
const RECORDED = Object.keys(MEASURES).filter((name) => data.groups.some((group) =>
  group.responses.some((response) => valuesOf(response, name))));
const LARGEST = data.groups.flatMap((group) => group.responses).flatMap((response) => Object.values(response.weighted))
  .reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-9); // a bar of full length
const DEFAULTS = { kind: "all", part: "total", min: "", max: "", colour: RECORDED[0] ?? "none" };

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : String(Number(value.toFixed(digits)));
}

// ---- state: the location's hash, so that a view can be linked to ----
function readState() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const state = { step: Number(hash.get("step")) };
  for (const name of Object.keys(DEFAULTS)) state[name] = hash.get(name) ?? DEFAULTS[name];
  if (!data.steps.some((step) => step.step === state.step)) state.step = data.steps.at(-1).step;
  for (const name of ["kind", "part", "colour"]) {
    if (![...form.elements[name].options].some((option) => option.value === state[name])) state[name] = DEFAULTS[name];
  }
  return state;
}

function writeState(change) {
  const state = { ...readState(), ...change };
  const hash = new URLSearchParams({ step: state.step });
  for (const [name, value] of Object.entries(DEFAULTS)) if (state[name] !== value) hash.set(name, state[name]);
  location.hash = hash;
}

// ---- filters ----
function score(response, part) {
  return part === "total" ? response.total : response.raw[part];
}

function inRange(response, state) {
  if (state.min === "" && state.max === "") return true;
  const value = score(response, state.part);
  if (value === null || value === undefined) return false;
  return !(state.min !== "" && value < Number(state.min)) && !(state.max !== "" && value > Number(state.max));
}

function rightAnswers(group) {
  return group.responses.filter((response) => response.raw.accuracy > 0).length;
}

function ofKind(group, kind) {
  const right = rightAnswers(group);
  if (kind === "right") return right === group.responses.length;
  if (kind === "wrong") return right === 0;
  return kind === "mixed" ? right > 0 && right < group.responses.length : true;
}

// ---- drawing ----
function drawStrip(state) {
  const totals = data.steps.map((step) => step.total);
  const low = Math.min(0, ...totals), span = Math.max(...totals) - low || 1;
  document.getElementById("strip").replaceChildren(...data.steps.map((step) => {
    const button = element("button");
    button.type = "button";
    button.setAttribute("aria-pressed", step.step === state.step);
    button.title = `step ${step.step}: mean reward ${number(step.total)}, accuracy ${number(step.accuracy)}`;
    const bar = element("i");
    bar.style.height = `${4 + 44 * (step.total - low) / span}px`;
    button.append(bar, element("span", "", step.step));
    button.addEventListener("click", () => writeState({ step: step.step }));
    return button;
  }));
}

function valuesOf(response, name) {
  return response.measured[MEASURES[name].field];
}

// Of a step: the value that gets the full colour, and the extremes. That is the 95th percentile of the values' sizes,
// so that one outlier does not pale the rest.
function rangeOf(groups, name) {
  const values = groups.flatMap((group) => group.responses.flatMap((response) => valuesOf(response, name) ?? []));
  if (!values.length) return null;
  const sizes = values.map(Math.abs).sort((a, b) => a - b);
  const full = sizes[Math.floor(0.95 * (sizes.length - 1))] || sizes.at(-1) || 1;
  const ends = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  return { full, low: ends[0], high: ends[1] };
}

function drawLegend(state, range) {
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  if (state.colour === "none") return;
  if (!range) return legend.append("not recorded in this step");
  const { below, unit = "" } = MEASURES[state.colour], gradient = element("i");
  const stops = (below ? [-1, 0, 1] : [0, 1]).map((strength) => tint(state.colour, strength));
  gradient.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  legend.append(below ? `${number(-range.full)} and less` : "0", gradient, `${number(range.full)}${unit} and more`);
  legend.append(element("small", "", `in this step ${number(range.low)} to ${number(range.high)}`));
}

function tint(name, strength) {
  const { colour, below } = MEASURES[name];
  const alpha = 0.62 * Math.min(1, Math.abs(strength));
  return `rgba(${(strength < 0 && below ? below : colour).join(", ")}, ${alpha.toFixed(3)})`;
}

function drawTokens(response, state, range) {
  const text = element("div", "text");
  const measured = RECORDED.filter((name) => valuesOf(response, name));
  text.append(...response.tokens.map((token, i) => {
    const node = element("span", "", token);
    const lines = measured.map((name) =>
      `${MEASURES[name].label} ${valuesOf(response, name)[i]}${MEASURES[name].unit ?? ""}`);
    if (lines.length) node.title = lines.join("\n");
    if (measured.includes(state.colour)) {
      node.style.backgroundColor = tint(state.colour, valuesOf(response, state.colour)[i] / range.full);
    }
    return node;
  }));
  return text;
}

function drawParts(response) {
  const parts = element("div", "parts");
  for (const name of data.parts) {
    const weighted = response.weighted[name] ?? 0, closed = response.closed.includes(name);
    const track = element("div", closed ? "bar closed" : "bar"), bar = element("i", weighted < 0 ? "minus" : "");
    bar.style.width = `${100 * Math.abs(weighted) / LARGEST}%`;
    bar.dataset.part = name;
    track.append(bar);
    track.title = closed ? `${name}: its gate is closed, so it counts 0` : `${name}: adds ${number(weighted)} to the total`;
    const value = element("div", "value", number(weighted));
    value.append(element("small", "", ` raw ${number(response.raw[name])}`));
    parts.append(element("div", "name", name), track, value);
  }
  return parts;
}

function drawResponse(response, state, range) {
  const card = element("article", "response"), head = element("h3", "", number(response.total));
  if ("accuracy" in response.raw) {
    const accuracy = response.raw.accuracy;
    const verdict = accuracy === null ? "undecided" : accuracy > 0 ? "right" : "wrong";
    head.append(element("span", `badge ${verdict}`, verdict));
  }
  if (response.masked) head.append(element("span", "badge masked", "masked"));
  head.append(element("span", "length", `${response.tokens.length} tokens`));
  card.append(head, drawParts(response));
  if (response.error) card.append(element("pre", "error", response.error));
  card.append(drawTokens(response, state, range));
  return card;
}

function drawGroup(group, responses, state, range) {
  const section = element("section", "group"), prompt = element("div", "prompt"), facts = element("dl");
  for (const index of group.images) {
    const image = element("img");
    image.src = data.images[index];
    image.alt = "image of the question";
    prompt.append(image);
  }
  const totals = group.responses.map((response) => response.total);
  const mean = totals.reduce((sum, total) => sum + total, 0) / totals.length;
  const rows = { gold: group.gold, right: `${rightAnswers(group)} of ${group.responses.length}`, "mean reward": number(mean), row: group.row };
  for (const [name, value] of Object.entries(rows)) facts.append(element("dt", "", name), element("dd", name, value));
  prompt.append(element("p", "question", group.question), facts);
  const cards = element("div", "responses");
  cards.append(...responses.map((response) => drawResponse(response, state, range)));
  section.append(prompt, cards);
  return section;
}

function draw() {
  const state = readState(), step = data.steps.find((candidate) => candidate.step === state.step);
  for (const name of Object.keys(DEFAULTS)) if (form.elements[name].value !== state[name]) form.elements[name].value = state[name];
  const ofStep = data.groups.filter((group) => group.step === state.step);
  const range = state.colour === "none" ? null : rangeOf(ofStep, state.colour);
  drawStrip(state);
  drawLegend(state, range);
  const chosen = ofStep.filter((group) => ofKind(group, state.kind))
    .map((group) => [group, group.responses.filter((response) => inRange(response, state))])
    .filter(([, responses]) => responses.length);
  const count = chosen.reduce((sum, [, responses]) => sum + responses.length, 0);
  const left = step.groups > step.shown ? `; the page holds ${step.shown} of the step's ${step.groups} groups (--groups)` : "";
  document.getElementById("summary").textContent =
    `Step ${step.step}: mean reward ${number(step.total)}, accuracy ${number(step.accuracy)}. ` +
    `${count} responses of ${chosen.length} groups shown${left}.`;
  const sections = chosen.map(([group, responses]) => drawGroup(group, responses, state, range));
  if (!sections.length) sections.push(element("p", "empty", "No response of this step matches the filters."));
  document.getElementById("groups").replaceChildren(...sections);
}

// ---- start ----
form.elements.part.append(...["total", ...data.parts].map((name) => new Option(name, name)));
form.elements.colour.append(...RECORDED.map((name) => new Option(MEASURES[name].label, name)), new Option("nothing", "none"));
form.addEventListener("change", (event) => writeState({ [event.target.name]: event.target.value }));
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("reset").addEventListener("click", () => writeState(DEFAULTS));
addEventListener("hashchange", draw);
const { first, last, count } = data.recorded;
document.getElementById("extent").textContent = data.steps.length < count
  ? `${data.steps.length} of the ${count} recorded steps from ${first} to ${last} (--steps)`
  : `${count} recorded step${count > 1 ? "s" : ""}`;
draw();
