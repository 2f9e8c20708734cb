"use strict";
// Charts, copy buttons and the table of trials. No network: everything is in this page.
const read = (id) => JSON.parse(document.getElementById(id).textContent);

async function drawCharts() {
  const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } };
  const charts = read("charts");
  for (const place of document.querySelectorAll(".chart")) {
    const { view } = await vegaEmbed(place, charts[place.dataset.chart], options);
    view.addEventListener("click", (event, item) => {
      if (item && item.datum && item.datum.id) showTrial(item.datum.id);
    });
  }
  document.body.dataset.drawn = "true";
}

function copy(text, button) {
  const said = button.textContent;
  const say = (word) => {
    button.textContent = word;
    setTimeout(() => (button.textContent = said), 1200);
  };
  const area = document.createElement("textarea"); // works in a file, where navigator.clipboard may not
  area.value = text;
  document.body.append(area);
  area.select();
  say(document.execCommand("copy") ? "copied" : said);
  area.remove();
  button.focus();
}

for (const button of document.querySelectorAll("button[data-copy]"))
  button.addEventListener("click", () => copy(button.dataset.copy, button));

// The table: columns of values; sorting and filtering make a list of row numbers, of which the first ones are shown.
const STEP = 100;
const REMEMBERED = `filter of ${location.pathname}`;
const table = read("trials");
const count = table.columns.length ? table.columns[0].values.length : 0;
const state = { sort: null, descending: false, filter: "", shown: STEP };
const value = (column, row) => (column.levels ? column.levels[column.values[row]] : column.values[row]);
const text = (column, row) => {
  const cell = value(column, row);
  if (cell === null || cell === undefined) return "–";
  if (typeof cell !== "number") return cell;
  return typeof column.digits === "number" ? cell.toFixed(column.digits) : String(Number(cell.toPrecision(5)));
};

function test(word) {
  const parts = /^([^<>=]+)(<=|>=|<|>|=)(.+)$/.exec(word);
  const column = parts && table.columns.find((each) => each.name.toLowerCase() === parts[1]);
  if (!column) return (row) => table.columns.some((each) => text(each, row).toLowerCase().includes(word));
  const [operator, wanted] = [parts[2], Number(parts[3])];
  if (operator === "=" && !(column.number && !Number.isNaN(wanted)))
    return (row) => text(column, row).toLowerCase() === parts[3];
  const holds = { "<": (a) => a < wanted, ">": (a) => a > wanted, "<=": (a) => a <= wanted, ">=": (a) => a >= wanted, "=": (a) => a === wanted };
  return (row) => typeof value(column, row) === "number" && holds[operator](value(column, row));
}

function order(column, descending) {
  const sign = descending ? -1 : 1;
  return (a, b) => {
    const [left, right] = [value(column, a), value(column, b)];
    if (left === right) return a - b;
    if (left === null) return 1; // what has no value comes last either way
    if (right === null) return -1;
    if (typeof left === "number" && typeof right === "number") return sign * (left - right);
    return sign * String(left).localeCompare(String(right), "en", { numeric: true });
  };
}

function cell(column, row) {
  const made = document.createElement("td");
  if (column.name === "id") {
    made.className = "id";
    const button = document.createElement("button");
    button.type = "button";
    button.title = "copy this id";
    button.textContent = text(column, row);
    button.addEventListener("click", () => copy(value(column, row), button));
    made.append(button);
    return made;
  }
  made.textContent = text(column, row);
  if (column.number) made.className = "number";
  if (column.name === "status" && value(column, row) !== "complete") made.className = "lost";
  return made;
}

function showTable() {
  const tests = state.filter.toLowerCase().split(/\s+/).filter(Boolean).map(test);
  const rows = [];
  for (let row = 0; row < count; row++) if (tests.every((holds) => holds(row))) rows.push(row);
  if (state.sort !== null) rows.sort(order(table.columns[state.sort], state.descending));
  const body = document.querySelector("#table tbody");
  const best = new Set(table.best);
  body.replaceChildren(
    ...rows.slice(0, state.shown).map((row) => {
      const line = document.createElement("tr");
      if (best.has(value(table.columns[0], row))) line.className = "best";
      line.append(...table.columns.map((column) => cell(column, row)));
      return line;
    }),
  );
  const seen = Math.min(state.shown, rows.length);
  document.getElementById("seen").textContent = `${seen.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs shown`;
  document.getElementById("more").hidden = seen === rows.length;
}

function sortBy(index, header) {
  state.descending = state.sort === index ? !state.descending : table.columns[index].down === true;
  state.sort = index;
  for (const other of document.querySelectorAll("#table th")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
  showTable();
}

function filterBy(words) {
  document.getElementById("filter").value = state.filter = words;
  state.shown = STEP;
  showTable();
}

function showTrial(id) {
  filterBy(id);
  document.getElementById("runs").scrollIntoView({ behavior: "smooth" });
}

document.querySelectorAll("#table th").forEach((header, index) =>
  header.querySelector("button").addEventListener("click", () => sortBy(index, header)));
document.getElementById("filter").addEventListener("input", (event) => {
  sessionStorage.setItem(REMEMBERED, event.target.value); // outlives the refresh while a study runs
  filterBy(event.target.value);
});
document.getElementById("more").addEventListener("click", () => {
  state.shown += 5 * STEP;
  showTable();
});
filterBy(sessionStorage.getItem(REMEMBERED) || "");
drawCharts();
