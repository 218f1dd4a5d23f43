
"use strict";
// Elements, and what numbers and names are called on the page.
//
// The data is others': it becomes text (textContent, fillText), never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with text or children, and properties; null among the children is nothing. */
function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const count = (n) => n.toLocaleString("en");
const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);
const most = (list, of) => list.reduce((largest, one) => Math.max(largest, of(one)), 0);
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
const share = (part, whole) => {
  const percent = whole ? (part / whole) * 100 : 0;
  return percent > 0 && percent < 1 ? "< 1 %" : percent < 100 && percent > 99 ? "> 99 %" : `${Math.round(percent)} %`;
};

/** Microseconds for people. */
function time(us) {
  if (us === 0) return "0";
  if (us < 1e3) return `${us} µs`;
  if (us < 1e4) return `${(us / 1e3).toFixed(1)} ms`;
  if (us < 1e6) return `${Math.round(us / 1e3)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
  const seconds = Math.round(us / 1e6);
  return `${count(Math.floor(seconds / 60))} min ${seconds % 60} s`;
}

function bytes(n) {
  for (const unit of ["bytes", "KiB", "MiB"]) {
    if (n < 1024) return unit === "bytes" ? plural(n, "byte") : `${n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} GiB`;
}

const SOURCES = {
  cache: { text: "from a cache", colour: "--cache" },
  remote: { text: "from the server", colour: "--remote" },
  clang: { text: "compiled by clang, here", colour: "--clang" },
  lld: { text: "compiled by lld", colour: "--lld" },
};
/** Names of sources, in the table's order. */
const sourcesInOrder = (names) => {
  const known = Object.keys(SOURCES);
  return [...new Set(names)].sort((a, b) => known.indexOf(a) - known.indexOf(b));
};
const source = (name) =>
  Object.hasOwn(SOURCES, name) ? SOURCES[name] : { text: name === null ? "not said" : name, colour: "--other" };

const WAITS = {
  slot: "a free slot on this machine",
  token: "a token of the build's jobserver",
  memory: "free memory",
  server: "the server",
  clang: "a clang process",
  turn: "its turn among large links",
};
const waitName = (name) => (Object.hasOwn(WAITS, name) ? WAITS[name] : name);

/** Phases in the order in which they come; others follow, by name. */
const PHASES = {
  plan: { text: "Before lld started", colour: "--plan" },
  turn: { text: "Waiting for other large links", colour: "--wait" },
  backends: { text: "Until lld had its last object", colour: "--lld" },
  final: { text: "Final link, until lld ended", colour: "--final" },
  end: { text: "After lld", colour: "--end" },
};
const phase = (name) => (Object.hasOwn(PHASES, name) ? PHASES[name] : { text: name, colour: "--other" });
const inOrder = (names) => {
  const known = Object.keys(PHASES);
  const place = (name) => (known.includes(name) ? known.indexOf(name) : known.length);
  return [...names].sort((a, b) => place(a) - place(b));
};

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A moment, in microseconds since 1970, as the clock of who reads shows it. */
const moment = (us) => new Date(us / 1e3).toLocaleString("sv-SE");

/** A module's name without its directories. */
const shortName = (name) => name.slice(name.lastIndexOf("/", name.length - 2) + 1);

function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.background = `var(${colour})`;
  return made;
}

function legend(list, entries) {
  list.replaceChildren(...entries.map(({ text, colour }) => element("li", {}, swatch(colour), text)));
}

/** Totals of phases as bars: [name, microseconds]. */
function showPhases(place, totals) {
  const whole = sum(totals, ([, us]) => us);
  const longest = most(totals, ([, us]) => us) || 1;
  const rows = totals.flatMap(([name, us]) => {
    const bar = element("div");
    bar.style.width = us ? `max(1px, ${(us / longest) * 100}%)` : "0";
    bar.style.background = `var(${phase(name).colour})`;
    return [
      element("div", {}, phase(name).text),
      element("div", { className: "bar", ariaHidden: "true" }, bar),
      element("div", { className: "number" }, time(us)),
      element("div", { className: "number quiet" }, share(us, whole)),
    ];
  });
  const none = element("p", { className: "quiet" }, "No phase was recorded.");
  place.replaceChildren(rows.length ? element("div", { className: "bars" }, ...rows) : none);
}
