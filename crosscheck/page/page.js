// The rows: filters, a search, sorting, and a page of them at a time. What is shown is text, never HTML.
const ROWS_OF_A_PAGE = 100;
const COLUMNS = ["framework", "case", "dtype", "mode", "quantity", "fault", "max_abs", "max_rel", "limit", "verdict"];
const KINDS = {
  output: "outputs", gate: "gates", loss: "losses", grad: "gradients", weight: "parameters", state: "statistics",
  slot: "slots",
};

const data = JSON.parse(document.getElementById("data").textContent);
const texts = data.texts;
const count = texts.framework.rows.length;
const failed = new Uint8Array(count);
for (const row of data.failed) failed[row] = 1;
// What could not be compared is larger than all that could.
const numbers = Object.fromEntries(
  Object.entries(data.numbers).map(([name, column]) => [name, Float64Array.from(column, (value) => value ?? Infinity)]),
);
const hasFaults = texts.fault.values.some((value) => value);
const columns = COLUMNS.filter((name) => name !== "fault" || hasFaults);

const form = document.getElementById("filters");
const list = document.getElementById("list");
const pages = document.getElementById("pages");
const status = document.getElementById("count");
let sorting = { column: null, descending: false };
let order = [];
let page = 0;

// Filters

function option(value, label) {
  return new Option(label, value);
}

function fill(select, name) {
  const values = texts[name].values;
  select.append(option("", "all"));
  if (name === "quantity") {
    const kinds = [...new Set(values.map((value) => value.split(":")[0]))];
    const whole = kinds.filter((kind) => values.filter((value) => value.startsWith(kind + ":")).length > 1);
    for (const kind of whole) select.append(option(kind + ":", "all " + (KINDS[kind] ?? kind)));
  }
  values.forEach((value, number) => value && select.append(option(String(number), value)));
  // A choice of one is none.
  select.parentElement.hidden = values.length < 2;
}

// For each text of a column whether it passes the filter; null where all do.
function passing(name) {
  const chosen = form.elements[name].value;
  if (!chosen) return null;
  const values = texts[name].values;
  const starts = chosen.endsWith(":");
  return values.map((value, number) => (starts ? value.startsWith(chosen) : String(number) === chosen));
}

// A row has a word if one of its texts has it.
function holding(word) {
  return Object.values(texts).map(({ values, rows }) => [
    values.map((value) => value.toLowerCase().includes(word)),
    rows,
  ]);
}

function filter() {
  const tests = ["framework", "case", "dtype", "mode", "quantity", "fault"]
    .map((name) => [passing(name), texts[name].rows])
    .filter(([passes]) => passes);
  const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean).map(holding);
  const onlyFailed = form.elements.failed.checked;
  order = [];
  for (let row = 0; row < count; row++) {
    if (onlyFailed && !failed[row]) continue;
    if (!tests.every(([passes, rows]) => passes[rows[row]])) continue;
    if (!words.every((word) => word.some(([holds, rows]) => holds[rows[row]]))) continue;
    order.push(row);
  }
  sort();
}

// Sorting

const collator = new Intl.Collator("en", { numeric: true });
const ranks = {};

// For each row a number that sorts as its column does.
function keys(column) {
  if (numbers[column]) return numbers[column];
  if (!ranks[column]) {
    const { values, rows } = texts[column];
    const sorted = values.map((_, number) => number).sort((a, b) => collator.compare(values[a], values[b]));
    const rank = new Int32Array(values.length);
    sorted.forEach((number, position) => (rank[number] = position));
    ranks[column] = Int32Array.from(rows, (number) => rank[number]);
  }
  return ranks[column];
}

function sort() {
  if (sorting.column) {
    const key = keys(sorting.column);
    const sign = sorting.descending ? -1 : 1;
    order.sort((a, b) => (key[a] === key[b] ? a - b : key[a] < key[b] ? -sign : sign));
  }
  page = 0;
  show();
}

function sortBy(column) {
  // The largest differences are what one looks for.
  const first = column in numbers;
  if (sorting.column !== column) sorting = { column, descending: first };
  else if (sorting.descending === first) sorting = { column, descending: !first };
  else sorting = { column: null, descending: false };
  head();
  filter();
}

// What is seen

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function head() {
  const focused = document.activeElement?.dataset?.column;
  const cells = columns.map((column) => {
    const cell = element("th", "", column in numbers ? "number" : "");
    cell.role = "columnheader";
    const button = element("button", column);
    button.type = "button";
    button.dataset.column = column;
    button.addEventListener("click", () => sortBy(column));
    if (sorting.column === column) cell.ariaSort = sorting.descending ? "descending" : "ascending";
    cell.append(button);
    return cell;
  });
  list.querySelector("thead tr").replaceChildren(...cells);
  if (focused) list.querySelector(`button[data-column="${focused}"]`).focus();
}

function number(value) {
  if (value === Infinity) return "-";
  return value === 0 ? "0" : value.toExponential(2);
}

function textOf(column, row) {
  if (column in numbers) return number(numbers[column][row]);
  const text = texts[column].values[texts[column].rows[row]];
  if (column !== "verdict") return text;
  const reason = texts.reason.values[texts.reason.rows[row]];
  return `${failed[row] ? "✗" : "✓"} ${text}${reason ? ": " + reason : ""}`;
}

function cell(column, row) {
  const verdict = failed[row] ? "bad" : "good";
  const kind = column in numbers ? "number" : column === "verdict" ? verdict : "";
  const made = element("td", column === "quantity" ? "" : textOf(column, row), kind);
  if (column === "quantity") {
    // Long names may break behind their dots.
    for (const part of textOf(column, row).split(/(?<=[.:])/)) made.append(part, document.createElement("wbr"));
  }
  // On a narrow screen a row is no row of a table to look at, but still is one.
  made.role = "cell";
  made.dataset.name = column;
  return made;
}

function show() {
  const last = Math.max(Math.ceil(order.length / ROWS_OF_A_PAGE) - 1, 0);
  page = Math.min(Math.max(page, 0), last);
  const from = page * ROWS_OF_A_PAGE;
  const rows = order.slice(from, from + ROWS_OF_A_PAGE).map((row) => {
    const line = document.createElement("tr");
    line.role = "row";
    line.append(...columns.map((column) => cell(column, row)));
    return line;
  });
  list.querySelector("tbody").replaceChildren(...rows);
  const failures = order.reduce((sum, row) => sum + failed[row], 0);
  const said = failures ? `${failures.toLocaleString("en")} of them failed` : "none of them failed";
  status.textContent = `${order.length.toLocaleString("en")} of ${count.toLocaleString("en")} rows, ${said}.`;
  const to = (from + rows.length).toLocaleString("en");
  document.getElementById("shown").textContent = rows.length ? `${(from + 1).toLocaleString("en")} to ${to}` : "no rows";
  pages.hidden = last === 0;
  for (const button of pages.querySelectorAll("button")) {
    button.disabled = page === (["first", "previous"].includes(button.dataset.to) ? 0 : last);
  }
}

const PLACES = { first: () => 0, previous: () => page - 1, next: () => page + 1, last: () => Infinity };

pages.addEventListener("click", (event) => {
  const to = PLACES[event.target.dataset.to];
  if (!to) return;
  page = to();
  show();
  list.scrollIntoView({ block: "nearest" });
});

for (const name of ["framework", "case", "dtype", "mode", "quantity", "fault"]) fill(form.elements[name], name);
form.addEventListener("input", filter);
form.addEventListener("change", filter);
form.addEventListener("submit", (event) => event.preventDefault());
// The form is empty only after the event.
form.addEventListener("reset", () => setTimeout(filter));
form.hidden = false;
list.hidden = false;
head();
filter();

// A framework in the summary leads to its rows.
document.getElementById("summary").addEventListener("click", (event) => {
  const link = event.target.closest("a[data-framework]");
  if (!link) return;
  form.reset();
  for (const [name, value] of Object.entries(link.dataset)) {
    form.elements[name].value = String(texts[name].values.indexOf(value));
  }
  filter();
});

// The command, and the theme

document.getElementById("copy").addEventListener("click", async (event) => {
  const command = document.getElementById("command");
  try {
    await navigator.clipboard.writeText(command.textContent);
    event.target.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(command);
    event.target.textContent = "Selected";
  }
});

const theme = document.getElementById("theme");

function paint() {
  document.documentElement.dataset.theme = theme.value;
}

theme.addEventListener("change", () => {
  paint();
  try {
    localStorage.setItem("cbam-theme", theme.value);
  } catch {
    // It is chosen for this view alone where nothing may be kept.
  }
});
try {
  theme.value = localStorage.getItem("cbam-theme") ?? "";
} catch {
  theme.value = "";
}
paint();
