// The page without this script is whole; the script chooses columns, computes shapes, searches.
// The choice lives in the address: #inception?show=tf,torch&spec=mini&size=97
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const { words, titles } = data;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const fill = (text, ...values) => values.reduce((done, value) => done.replace("{}", value), text);

// ---- the state, and the address that holds it

const first = Object.keys(data.specs)[0];
const state = { show: [...data.columns], spec: first, size: data.specs[first].input[1] };

function readAddress() {
  const [place, query = ""] = location.hash.slice(1).split("?");
  const asked = new URLSearchParams(query);
  if (asked.has("show")) {
    const show = asked.get("show").split(",").filter((name) => Object.hasOwn(titles, name));
    if (show.length) state.show = [...new Set(show)];
  }
  if (Object.hasOwn(data.specs, asked.get("spec"))) {
    state.spec = asked.get("spec");
    state.size = data.specs[state.spec].input[1];
  }
  if (isSize(asked.get("size"))) state.size = Number(asked.get("size"));
  try {
    return decodeURIComponent(place);
  } catch {
    return ""; // a % that begins no character
  }
}

function writeAddress(place = location.hash.slice(1).split("?")[0]) {
  const jump = document.getElementById("jump");
  if ([...jump.options].some((option) => option.value === place)) jump.value = place;
  const asked = [];
  if (state.show.join() !== data.columns.join()) asked.push(`show=${state.show.join(",")}`);
  if (state.spec !== first) asked.push(`spec=${state.spec}`);
  if (state.size !== data.specs[state.spec].input[1]) asked.push(`size=${state.size}`);
  const hash = place + (asked.length ? `?${asked.join("&")}` : "");
  if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`);
  const other = document.getElementById("language");
  other.href = other.getAttribute("href").split("#")[0] + (hash ? `#${hash}` : "");
}

/** Open every fold around an element, show its column, and bring it into view. */
function reveal(element) {
  for (let fold = element.closest("details"); fold; fold = fold.parentElement.closest("details"))
    fold.open = true;
  const column = element.closest("[data-column]")?.dataset.column;
  if (column && !state.show.includes(column)) toggle(column);
  element.scrollIntoView({ block: element.matches("details, section, h2, h3") ? "start" : "center" });
}

function followAddress() {
  const place = readAddress();
  writeAddress(place);
  showColumns();
  showSpec();
  const element = place && document.getElementById(place);
  if (element) reveal(element);
}

// ---- columns

const chipRow = document.querySelector(".chips");
const topics = all(".columns");
const moved = document.getElementById("moved"); // what a screen reader says

function showColumns() {
  document.body.dataset.show = state.show.join(" ");
  document.body.dataset.count = state.show.length;
  const order = [...state.show, ...data.columns.filter((name) => !state.show.includes(name))];
  for (const topic of topics) {
    const columns = new Map(all(".column", topic).map((each) => [each.dataset.column, each]));
    if ([...columns.keys()].join() !== order.join())
      for (const name of order) topic.append(columns.get(name));
    for (const [name, column] of columns) {
      column.hidden = !state.show.includes(name);
      const at = state.show.indexOf(name);
      column.querySelector("[data-move='-1']").disabled = at <= 0;
      column.querySelector("[data-move='1']").disabled = at === state.show.length - 1;
    }
  }
  for (const each of all(".pitfalls [data-column]")) each.hidden = !state.show.includes(each.dataset.column);
  const chips = new Map(all(".chip", chipRow).map((each) => [each.dataset.column, each]));
  const focused = document.activeElement;
  if ([...chips.keys()].join() !== order.join())
    for (const name of order) chipRow.append(chips.get(name));
  if (chips.get(focused?.dataset?.column) === focused) focused.focus();
  for (const [name, chip] of chips) {
    chip.setAttribute("aria-pressed", state.show.includes(name));
    chip.disabled = state.show.length === 1 && state.show[0] === name;
  }
}

function toggle(name) {
  if (!state.show.includes(name)) state.show.push(name);
  else if (state.show.length > 1) state.show = state.show.filter((each) => each !== name);
  showColumns();
  writeAddress();
}

function move(name, by) {
  const from = state.show.indexOf(name);
  const to = from + by;
  if (from < 0 || to < 0 || to >= state.show.length) return;
  state.show.splice(to, 0, ...state.show.splice(from, 1));
  showColumns();
  writeAddress();
  const said = fill(words.moved, titles[name], to + 1, state.show.length);
  moved.textContent = said;
}

chipRow.addEventListener("click", (event) => {
  const chip = event.target.closest(".chip");
  if (chip) toggle(chip.dataset.column);
});
chipRow.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const chip = event.target.closest(".chip");
  if (!by || !chip) return;
  event.preventDefault();
  move(chip.dataset.column, by);
});

for (const topic of topics) {
  topic.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const column = button?.closest(".column");
    if (!column) return;
    if (button.classList.contains("copy")) copy(column, button);
    else {
      move(column.dataset.column, Number(button.dataset.move));
      (button.disabled ? button.parentElement.querySelector(".move:enabled") : button)?.focus();
    }
  });
}

async function copy(column, button) {
  const lines = all(".l", column).map((line) => line.textContent);
  try {
    await navigator.clipboard.writeText(lines.join(""));
    button.textContent = words.copied;
    moved.textContent = `${titles[column.dataset.column]}: ${words.copied}`;
    setTimeout(() => (button.textContent = words.copy), 1500);
  } catch {
    getSelection().selectAllChildren(column.querySelector("code")); // for the reader to copy
  }
}

// Without wrapping, the columns of a topic scroll together; on a phone all the topics do.
function scrollTogether(elements) {
  const set = new Map();
  for (const element of elements)
    element.addEventListener(
      "scroll",
      () => {
        if (set.get(element) === element.scrollLeft) return; // moved along with another
        for (const other of elements) {
          if (other === element || other.hidden) continue;
          other.scrollLeft = element.scrollLeft;
          set.set(other, other.scrollLeft);
        }
        set.delete(element);
      },
      { passive: true },
    );
}
for (const topic of topics) scrollTogether(all("pre", topic));
scrollTogether(topics);

function remember(name, value) {
  try {
    if (value) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null; // a page on disk may have no storage
  }
}

/** Change the page and leave what is read where it is: the line, or the topic if that closes. */
function stay(change) {
  const found = document.elementFromPoint(innerWidth / 3, innerHeight / 3);
  const read = [found?.closest(".l"), found?.closest("details.topic")].filter(Boolean);
  const tops = read.map((each) => each.getBoundingClientRect().top);
  change();
  const at = read.findIndex((each) => each.checkVisibility());
  if (at >= 0 && scrollY) scrollBy(0, read[at].getBoundingClientRect().top - tops[at]);
}

const wrap = document.getElementById("wrap");
function showWrap(wrapped) {
  document.body.classList.toggle("nowrap", !wrapped);
  wrap.setAttribute("aria-pressed", wrapped);
}
showWrap(remember("wrap") !== "no");
wrap.addEventListener("click", () => {
  const wrapped = document.body.classList.contains("nowrap");
  remember("wrap", wrapped ? "yes" : "no");
  stay(() => showWrap(wrapped));
});

// ---- topics: opening one puts it into the address

const folds = all("details.topic");
const openAll = document.getElementById("open-all");
const jump = document.getElementById("jump");
openAll.addEventListener("click", () => {
  const open = openAll.textContent === words.open_all;
  stay(() => folds.forEach((fold) => (fold.open = open)));
  openAll.textContent = open ? words.close_all : words.open_all;
});
for (const fold of folds)
  fold.querySelector("summary").addEventListener("click", () => {
    if (!fold.open) writeAddress(fold.id);
  });
jump.addEventListener("change", () => {
  writeAddress(jump.value);
  reveal(document.getElementById(jump.value));
});
addEventListener("beforeprint", () => {
  for (const fold of all("details")) fold.open = true;
});

// ---- the network: what common/spec/arithmetic.py computes, at any size

function slide(row, [, ...sides], at) {
  return sides.map((side, index) => {
    const room = side + 2 * row.padding[index] - row.kernel[index];
    if (room < 0) throw new RangeError(at);
    return Math[row.ceil ? "ceil" : "floor"](room / row.stride[index]) + 1;
  });
}

const product = (shape) => shape.reduce((done, side) => done * side);

/** The shape (C, H, W) or (C) that leaves a row, and its cost; calls `tell` for every row inside it. */
function walk(row, shape, norm, at, tell) {
  let out = shape, parameters = 0, adds = 0;
  if (row.branches) {
    let width = 0;
    for (const [name, rows] of Object.entries(row.branches)) {
      out = shape;
      rows.forEach((each, index) => {
        const inner = walk(each, out, norm, `${at}.${name}.${index}`, tell);
        out = inner.shape;
        parameters += inner.parameters;
        adds += inner.adds;
      });
      width += out[0];
    }
    out = [width, ...out.slice(1)];
  } else if (row.linear) {
    out = [row.linear];
    adds = product(shape) * row.linear;
    parameters = adds + row.linear;
  } else if (row.mean) {
    out = shape.slice(0, 1);
  } else if (row.sides) {
    out = [shape[0], ...row.sides];
  } else if (row.width) {
    out = [row.width, ...slide(row, shape, at)];
    const kernel = shape[0] * row.kernel[0] * row.kernel[1];
    adds = kernel * out[0] * out[1] * out[2];
    parameters = row.width * (kernel + (row.bias ? 1 : 0) + (norm && row.norm ? 2 : 0));
  } else if (row.kernel) {
    out = [shape[0], ...slide(row, shape, at)];
  }
  const found = { shape: out, parameters, adds };
  tell(at, found);
  return found;
}

/** Every row's shape and cost by its place; RangeError with the place that cannot take this size. */
function compute(name, size) {
  const spec = data.specs[name];
  const found = new Map();
  const add = (stage, rows, shape) => {
    const sum = { shape, parameters: 0, adds: 0 };
    for (const [at, row] of rows) {
      const each = walk(row, sum.shape, spec.norm, at, (place, costs) => found.set(place, costs));
      const features = at.endsWith(".conv") && spec.auxiliary[stage.at(-1)].features;
      if (features && product(each.shape) !== features) throw new RangeError(at);
      sum.shape = each.shape;
      sum.parameters += each.parameters;
      sum.adds += each.adds;
    }
    found.set(stage, sum);
    return sum.shape;
  };
  let shape = [spec.input[0], size, size];
  for (const [stage, rows] of Object.entries(spec.stages))
    shape = add(stage, rows.map((row, index) => [`${stage}.${index}`, row]), shape);
  add("head", [["head", spec.head]], shape);
  spec.auxiliary.forEach(({ after, rows }, index) => {
    const named = Object.entries(rows).map(([field, row]) => [`auxiliary.${index}.${field}`, row]);
    add(`auxiliary.${index}`, named, found.get(after).shape);
  });
  return found;
}

const network = document.getElementById("network");
const sizeField = document.getElementById("size");
const specField = document.getElementById("spec");
const wrong = document.getElementById("size-error");
const number = (value) => value.toLocaleString("en-US");
const shapeText = (shape) => `(${["N", ...shape].join(", ")})`;
let costs = new Map();

function isSize(text) {
  return /^\d+$/.test(text ?? "") && Number(text) >= 1 && Number(text) <= 2048;
}

function showSpec() {
  specField.value = state.spec;
  if (document.activeElement !== sizeField) sizeField.value = state.size;
  for (const drawing of all(".drawing")) drawing.hidden = drawing.dataset.spec !== state.spec;
  wrong.textContent = "";
  try {
    costs = compute(state.spec, state.size);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    wrong.textContent = fill(words.too_small, error.message);
    return;
  }
  const drawing = network.querySelector(`.drawing[data-spec="${state.spec}"]`);
  const sum = { parameters: 0, adds: 0 };
  for (const stage of all(".stage", drawing)) {
    const { shape, parameters, adds } = costs.get(stage.dataset.stage);
    stage.querySelector("[data-shape]").textContent = shapeText(shape);
    stage.querySelector("[data-parameters]").textContent = number(parameters);
    stage.querySelector("[data-multiply-adds]").textContent = number(adds);
    sum.parameters += parameters;
    sum.adds += adds;
  }
  drawing.querySelector("[data-total=parameters]").textContent = number(sum.parameters);
  drawing.querySelector("[data-total=multiply_adds]").textContent = number(sum.adds);
  for (const bar of all(".bar", drawing)) {
    const share = costs.get(bar.parentElement.dataset.at).adds / sum.adds;
    bar.style.width = `${Math.min(100, 500 * share).toFixed(1)}%`;
  }
  const chosen = drawing.querySelector(".chosen") ?? drawing.querySelector(".described");
  if (chosen) describe(chosen);
}

function describe(node) {
  for (const each of all(".described", network)) each.classList.remove("described");
  node.classList.add("described");
  const found = costs.get(node.dataset.at);
  const total = all(".stage", node.closest(".drawing")).reduce(
    (sum, stage) => sum + costs.get(stage.dataset.stage).adds, 0);
  const panel = document.getElementById("details");
  const title = document.createElement("h4");
  title.textContent = node.dataset.at;
  const list = document.createElement("dl");
  const share = ((100 * found.adds) / total).toFixed(1);
  const rows = [
    [words.shape, shapeText(found.shape)],
    [words.parameters, number(found.parameters)],
    [words.multiply_adds, number(found.adds)],
    [words.share, `${share} %`],
  ];
  for (const [term, value] of rows) {
    const row = document.createElement("div");
    row.append(document.createElement("dt"), document.createElement("dd"));
    row.firstChild.textContent = term;
    row.lastChild.textContent = value;
    list.append(row);
  }
  panel.replaceChildren(title, list);
}

function showLines(node) {
  const lane = node.closest(".lane");
  const kinds = lane ? [node.dataset.kind, lane.dataset.branch] : [node.dataset.kind];
  const lists = kinds.map((kind) => {
    const part = document.querySelector(`.part[data-kind="${kind}"]`);
    return part.querySelector("dl").cloneNode(true);
  });
  document.getElementById("details-lines").replaceChildren(...lists);
}

const drawings = document.querySelector(".drawings");
const nodeOf = (event) => event.target.closest("[data-at]");
for (const kind of ["pointerover", "focusin"])
  drawings.addEventListener(kind, (event) => {
    const node = nodeOf(event);
    if (node?.matches("button") && costs.has(node.dataset.at)) describe(node);
  });
drawings.addEventListener("click", (event) => {
  const node = event.target.closest("button[data-at]");
  if (!node || !costs.has(node.dataset.at)) return;
  for (const each of all(".chosen", network)) each.classList.remove("chosen");
  node.classList.add("chosen");
  describe(node);
  showLines(node);
});
specField.addEventListener("change", () => {
  state.spec = specField.value;
  state.size = data.specs[state.spec].input[1];
  sizeField.value = state.size;
  showSpec();
  writeAddress();
});
sizeField.addEventListener("input", () => {
  if (!isSize(sizeField.value)) {
    wrong.textContent = words.bad_size;
    return;
  }
  state.size = Number(sizeField.value);
  showSpec();
  writeAddress();
});
document.getElementById("network-form").addEventListener("submit", (e) => e.preventDefault());

// ---- search: topics, pitfalls, words, bugs and code

const search = document.getElementById("search");
const hits = document.getElementById("hits");
const found = document.getElementById("found");
const MOST = { code: 12, other: 8 }; // results of each kind
let entries;

/** The text of a cell; of a call only its name, not the place in the source. */
const nameIn = (cell) => (cell.querySelector("a code") ?? cell).textContent.trim();

function collect() {
  const made = [];
  const add = (kind, element, text, more = "") =>
    made.push({ kind, element, text: text.trim(), all: `${text} ${more}`.toLowerCase() });
  for (const fold of folds)
    add(words.kind_topic, fold, fold.querySelector("h3").textContent, `${fold.querySelector(".says").textContent} ${fold.id}`);
  for (const row of all("[data-pitfall]"))
    add(words.kind_pitfall, row, row.querySelector("a").textContent, row.dataset.pitfall);
  for (const row of all(".searched tbody tr"))
    add(words.kind_word, row, all("th, td", row).map(nameIn).join(" · "));
  for (const row of all(".matrix tbody tr"))
    add(words.kind_bug, row, all("th, td.prose", row).map((cell) => cell.textContent).join(" · "));
  for (const line of all(".column .l:not(.gap)"))
    add(titles[line.closest(".column").dataset.column], line, line.textContent);
  return made;
}

function showHits() {
  const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  hits.hidden = !asked.length;
  hits.replaceChildren();
  if (!asked.length) return;
  entries ??= collect();
  const matches = entries.filter((each) => each.text && asked.every((word) => each.all.includes(word)));
  const count = new Map();
  for (const { kind, element, text } of matches) {
    const code = element.matches(".l");
    const group = code ? "code" : kind;
    count.set(group, (count.get(group) ?? 0) + 1);
    if (count.get(group) > (code ? MOST.code : MOST.other)) continue;
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `#${element.closest("[id]").id}`;
    for (const [css, content] of [["kind", kind], [code ? "text code" : "text", text]]) {
      const part = document.createElement("span");
      part.className = css;
      part.textContent = content;
      link.append(part);
    }
    link.addEventListener("click", (event) => {
      event.preventDefault();
      hits.hidden = true;
      const topic = element.closest("details.topic");
      if (topic) writeAddress(topic.id);
      reveal(element);
      element.classList.remove("flash");
      void element.offsetWidth; // begin the animation anew
      element.classList.add("flash");
      const target = element.matches("details") ? element.querySelector("summary") : element;
      if (!target.matches("summary")) target.tabIndex = -1;
      target.focus({ preventScroll: true });
    });
    item.append(link);
    hits.append(item);
  }
  found.textContent = matches.length ? fill(words.search_found, matches.length) : words.search_none;
  if (!matches.length) {
    const none = document.createElement("li");
    none.className = "none";
    none.textContent = words.search_none;
    hits.append(none);
  }
}

search.addEventListener("input", showHits);
search.addEventListener("focus", showHits);
document.getElementById("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  hits.querySelector("a")?.click();
});
document.getElementById("search-form").addEventListener("keydown", (event) => {
  if (event.isComposing) return; // the keys belong to the input method
  const links = all("a", hits);
  const at = links.indexOf(document.activeElement);
  if (event.key === "Escape") {
    hits.hidden = true;
    search.focus();
    hits.hidden = true;
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const next = at + (event.key === "ArrowDown" ? 1 : -1);
    (links[next] ?? search).focus();
  }
});
document.getElementById("search-form").addEventListener("focusout", (event) => {
  if (event.relatedTarget && !event.relatedTarget.closest(".find")) hits.hidden = true;
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".find")) hits.hidden = true;
});

// ---- light and dark

const root = document.documentElement;
root.style.colorScheme = remember("theme") ?? "";
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.style.colorScheme = dark === "dark" ? "light" : "dark";
  remember("theme", root.style.colorScheme);
});

addEventListener("hashchange", followAddress);
followAddress();
root.dataset.ready = Math.round(performance.now()); // when the page could be used, in milliseconds
