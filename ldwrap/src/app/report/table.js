
// Tables that sort and filter.

/** How a column's numbers are shown: one unit for all of them, so that digits stand below each other. */
function unitOf(kind, largest) {
  if (kind === "time") {
    if (largest >= 1e8) return { title: " (s)", text: (us) => fixed(us / 1e6, 1) };
    if (largest >= 1e7) return { title: " (s)", text: (us) => fixed(us / 1e6, 2) };
    return { title: " (ms)", text: (us) => fixed(us / 1e3, largest >= 1e6 ? 0 : 1) };
  }
  if (kind === "bytes") {
    const big = largest >= 10 * 1024 * 1024;
    return { title: big ? " (MiB)" : " (KiB)", text: (n) => fixed(n / (big ? 1 << 20 : 1024), 1) };
  }
  return { title: "", text: count };
}
const fixed = (n, digits) => n.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** How many rows are shown at first, and how many more at a time. */
const FIRST = 25;
const MORE = 100;

/**
 * A table that sorts by any column, and filters. Columns: {title, kind: "text" | "number" | "time" | "bytes", value(row),
 * colour(row)}; a value that is null is unknown, and comes last; a column of
 * nothing else is left out. options: {label, what: [one, many], empty, sort, filter, choices: {label, of(row)},
 * select(row)}: sort is the title of the column by which it is sorted at first, the largest first; with select, the first
 * column's cells are buttons.
 */
class Table {
  constructor(place, columns, rows, options) {
    Object.assign(this, { place, rows, options, shown: FIRST, selected: null });
    this.columns = columns.filter(({ value }) => rows.some((row) => value(row) !== null));
    for (const column of this.columns) {
      column.unit = unitOf(column.kind, column.kind === "text" ? 0 : most(rows, (row) => column.value(row) || 0));
    }
    const sorted = options.sort && this.columns.find(({ title }) => title === options.sort);
    this.sort = sorted || null;
    this.descending = true;
    if (!rows.length) {
      place.replaceChildren(element("p", { className: "quiet" }, options.empty));
      return;
    }
    this.texts = rows.map((row) => columns.map((c) => (c.kind === "text" ? c.value(row) || "" : "")).join("\n").toLowerCase());
    this.order = rows.map((_, n) => n);
    this.build();
    this.update();
  }

  build() {
    this.buttons = this.columns.map((column) => {
      const button = element("button", { type: "button" }, column.title + column.unit.title);
      button.addEventListener("click", () => this.sortBy(column));
      return button;
    });
    const heads = this.columns.map(({ kind }, n) =>
      element("th", { scope: "col", className: kind === "text" ? "" : "number" }, this.buttons[n]));
    this.body = element("tbody");
    const table = element("table", { ariaLabel: this.options.label },
      element("thead", {}, element("tr", {}, ...heads)), this.body);
    this.more = element("div", { className: "more" });
    const filter = this.options.filter ? this.filterBar() : null;
    this.place.replaceChildren(...[filter, element("div", { className: "wide" }, table), this.more].filter(Boolean));
    if (this.options.select) this.body.addEventListener("keydown", (event) => this.move(event));
  }

  filterBar() {
    this.words = element("input", { type: "search", spellcheck: false, autocomplete: "off" });
    this.words.addEventListener("input", () => this.changed());
    const parts = [element("label", {}, "Filter ", this.words)];
    const choices = this.options.choices;
    const values = choices ? [...new Set(this.rows.map(choices.of))].sort() : [];
    if (values.length > 1) {
      const all = element("option", { value: "" }, "all");
      this.choice = element("select", {}, all, ...values.map((value) => element("option", { value }, value)));
      this.choice.addEventListener("change", () => this.changed());
      parts.push(element("label", {}, `${choices.label} `, this.choice));
    }
    this.said = element("span", { className: "quiet", role: "status" });
    return element("div", { className: "filter" }, ...parts, this.said);
  }

  changed() {
    this.shown = FIRST;
    this.update();
  }

  sortBy(column) {
    this.descending = this.sort === column ? !this.descending : column.kind !== "text";
    this.sort = column;
    this.changed();
  }

  /** Which rows are shown, in which order. */
  arrange() {
    const words = this.words ? this.words.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    const choice = this.choice ? this.choice.value : "";
    let found = this.order.filter((n) => words.every((word) => this.texts[n].includes(word)));
    if (choice) found = found.filter((n) => this.options.choices.of(this.rows[n]) === choice);
    if (!this.sort) return found;
    const { kind, value } = this.sort;
    const keys = this.rows.map(value);
    const direction = this.descending ? -1 : 1;
    const compare = kind === "text" ? new Intl.Collator("en", { numeric: true }).compare : (a, b) => a - b;
    const missing = (n) => (keys[n] === null ? 1 : 0);
    return found.sort((a, b) => missing(a) - missing(b) || (missing(a) ? a - b : direction * compare(keys[a], keys[b]) || a - b));
  }

  update() {
    this.found = this.arrange();
    this.columns.forEach((column, n) => {
      const state = column !== this.sort ? "none" : this.descending ? "descending" : "ascending";
      this.buttons[n].parentNode.setAttribute("aria-sort", state);
    });
    this.body.replaceChildren(...this.found.slice(0, this.shown).map((n) => this.row(n)));
    const [one, many] = this.options.what;
    if (this.said) {
      const all = plural(this.rows.length, one, many);
      this.said.textContent = this.found.length === this.rows.length ? all : `${count(this.found.length)} of ${all}`;
    }
    this.offerMore(many);
  }

  offerMore(many) {
    const left = this.found.length - this.shown;
    const button = (text, shown) => {
      const made = element("button", { type: "button" }, text);
      made.addEventListener("click", () => {
        const first = this.shown;
        this.shown = shown;
        this.update();
        this.focus(first);
      });
      return made;
    };
    const offers = left <= 0 ? [] : [button(`Show ${count(Math.min(left, MORE))} more`, this.shown + MORE)];
    if (left > MORE) offers.push(button(`Show all ${count(this.found.length)} ${many}`, Infinity));
    this.more.replaceChildren(...offers);
  }

  row(n) {
    const row = this.rows[n];
    const cells = this.columns.map((column, at) => {
      const value = column.value(row);
      if (value === null) return element("td", { className: column.kind === "text" ? "none" : "number none" }, "–");
      if (column.kind !== "text") return element("td", { className: value ? "number" : "number none" }, value ? column.unit.text(value) : "0");
      const colour = column.colour ? swatch(column.colour(row)) : null;
      if (at || !this.options.select) return element("td", { className: at ? "text" : "text main" }, colour, value);
      const button = element("button", { type: "button", className: "plain" }, value);
      button.addEventListener("click", () => this.options.select(row));
      return element("td", { className: "text main" }, button);
    });
    return element("tr", row === this.selected ? { "aria-current": "true" } : {}, ...cells);
  }

  select(row) {
    this.selected = row;
    const at = this.found ? this.found.findIndex((n) => this.rows[n] === row) : -1;
    [...(this.body ? this.body.rows : [])].forEach((tr, n) => {
      if (n === at) tr.setAttribute("aria-current", "true");
      else tr.removeAttribute("aria-current");
    });
  }

  focus(n) {
    const row = this.body.rows[n];
    const button = row && row.querySelector("button");
    if (button) button.focus();
  }

  /** Up and down from row to row. */
  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row) return;
    event.preventDefault();
    this.focus(row.sectionRowIndex + step);
  }
}
