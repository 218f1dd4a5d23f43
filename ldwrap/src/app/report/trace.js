
// One link, by its trace: all but the timeline.

const BACKEND = 0, PHASE = 1, WAIT = 2;

/** Events of a trace as objects: {kind, name, thread, start, length, module, source, bytes, waited, waitedFor, imports,
 * unfinished}. */
function eventsOf(trace) {
  const name = (n) => known(trace.names[n]);
  return trace.events.map(([kind, n, thread, start, length, more]) => ({
    kind, thread, start, length,
    name: name(n),
    module: kind === BACKEND ? name(n) : name(more.module),
    source: name(more.source),
    bytes: known(more.bytes),
    unfinished: more.unfinished === true,
    waited: known(more.waited_us),
    waitedFor: name(more.for),
    imports: Array.isArray(more.imports) ? more.imports.map(name) : known(more.imports),
  }));
}

const importCount = ({ imports }) => (Array.isArray(imports) ? imports.length : imports);

/** Waits by what for: of the trace's own events, or, if it has none, of what backends say. */
function waitsOf(events) {
  let waits = events.filter(({ kind }) => kind === WAIT);
  if (!waits.length) {
    waits = events.filter(({ kind, waited }) => kind === BACKEND && waited)
      .map((event) => ({ ...event, name: event.waitedFor || "(not said)", length: event.waited }));
  }
  const groups = new Map();
  for (const wait of waits) {
    const group = groups.get(wait.name) || { name: wait.name, times: 0, total: 0, longest: wait };
    group.times += 1;
    group.total += wait.length;
    if (wait.length > group.longest.length) group.longest = wait;
    groups.set(wait.name, group);
  }
  return [...groups.values()];
}

class LinkView {
  constructor(trace) {
    this.trace = trace;
    this.events = eventsOf(trace);
    this.backends = this.events.filter(({ kind }) => kind === BACKEND);
    this.showFacts();
    const phases = new Map();
    for (const { kind, name, length } of this.events) {
      if (kind === PHASE) phases.set(name, (phases.get(name) || 0) + length);
    }
    showPhases(byId("trace-phases"), inOrder(phases.keys()).map((name) => [name, phases.get(name)]));
    this.showWaits();
    this.showModules();
    this.showLegend();
    this.select(this.longest());
  }

  longest() {
    return this.backends.reduce((a, b) => (a && a.length >= b.length ? a : b), null);
  }

  showFacts() {
    const { trace, backends } = this;
    const from = sourcesInOrder(backends.map(({ source }) => source))
      .map((name) => [name, backends.filter(({ source }) => source === name).length]);
    const longest = this.longest();
    const compiling = sum(backends.filter(({ source }) => source !== "cache"), ({ length }) => length);
    const facts = [
      ["Time", time(trace.total_us)],
      ["Modules", count(backends.length)],
      ...from.map(([name, n]) => [capital(source(name).text), `${count(n)} (${share(n, backends.length)})`]),
      ...(compiling ? [["Compiling, all modules", time(compiling)]] : []),
      ["Longest module", longest ? time(longest.length) : "–"],
    ];
    if (trace.lld) facts.push(["lld", trace.lld]);
    if (trace.started_us) facts.push(["Started", moment(trace.started_us)]);
    if (trace.not_recorded) facts.push(["Not recorded", plural(trace.not_recorded, "event")]);
    byId("facts").replaceChildren(...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }

  showLegend() {
    const entries = sourcesInOrder(this.backends.map(({ source }) => source)).map(source);
    if (this.events.some(({ kind }) => kind === WAIT)) entries.push({ text: "waiting", colour: "--wait" });
    legend(byId("legend"), entries);
  }

  showWaits() {
    const columns = [
      { title: "Waited for", kind: "text", value: ({ name }) => waitName(name) },
      { title: "Times", kind: "number", value: ({ times }) => times },
      { title: "Total", kind: "time", value: ({ total }) => total },
      { title: "Longest", kind: "time", value: ({ longest }) => longest.length },
      { title: "Longest wait: which module", kind: "text", value: ({ longest }) => longest.module },
    ];
    new Table(byId("waits"), columns, waitsOf(this.events), {
      label: "Waits", what: ["reason", "reasons"], sort: "Total", empty: "Nothing waited.",
    });
  }

  showModules() {
    const from = ({ source: name }) => source(name).text;
    const columns = [
      { title: "Module", kind: "text", value: ({ name }) => name },
      { title: "Where from", kind: "text", value: from, colour: ({ source: name }) => source(name).colour },
      { title: "Began after", kind: "time", value: ({ start }) => start },
      { title: "Took", kind: "time", value: ({ length }) => length },
      { title: "Waited", kind: "time", value: ({ waited }) => waited },
      { title: "Object", kind: "bytes", value: ({ bytes }) => bytes },
      { title: "Imports from", kind: "number", value: importCount },
    ];
    this.table = new Table(byId("modules"), columns, this.backends, {
      label: "Modules", what: ["module", "modules"], sort: "Took", filter: true, empty: "The trace has no module.",
      choices: { label: "Where from", of: from },
      select: (row) => { this.select(row); timeline.reveal(row); },
    });
  }

  /** Shows what an event is, and marks it in the table. */
  select(event) {
    this.selected = event;
    this.table.select(event);
    byId("detail").replaceChildren(...(event ? this.details(event) :
      [element("p", { className: "quiet" }, "No bar is selected.")]));
  }

  details(event) {
    const { trace } = this;
    const title = { [BACKEND]: event.name, [PHASE]: phase(event.name).text, [WAIT]: `Waiting for ${waitName(event.name)}` }[event.kind];
    const said = [`${time(event.length)}, from ${time(event.start)} to ${time(event.start + event.length)}`, trace.threads[event.thread]];
    if (event.kind === BACKEND) said.unshift(source(event.source).text);
    if (event.kind === WAIT && event.module) said.push(event.module);
    if (event.waited) said.push(`waited ${time(event.waited)}${event.waitedFor ? ` for ${waitName(event.waitedFor)}` : ""}`);
    if (event.unfinished) said.push("not finished when lld ended");
    if (event.bytes !== null) said.push(`object of ${bytes(event.bytes)}`);
    const parts = [element("div", { className: "name" }, title), element("div", {}, said.join(" · "))];
    if (event.kind !== BACKEND) return parts;
    const into = this.backends.filter(({ imports }) => Array.isArray(imports) && imports.includes(event.name));
    if (Array.isArray(event.imports)) parts.push(this.moduleList("Imports from", event.imports));
    else if (event.imports !== null) parts.push(element("div", {}, `Imports from ${plural(event.imports, "module")}.`));
    if (into.length) parts.push(this.moduleList("Imported by", into.map(({ name }) => name)));
    return parts;
  }

  /** Names of modules, each a button that selects it. */
  moduleList(title, names) {
    const shown = names.slice(0, 50).map((name) => {
      const button = element("button", { type: "button", className: "plain", title: name }, shortName(name));
      const row = this.backends.find((event) => event.name === name);
      button.disabled = !row;
      button.addEventListener("click", () => { this.select(row); timeline.reveal(row); byId("lanes").focus(); });
      return element("li", {}, button);
    });
    if (names.length > shown.length) shown.push(element("li", {}, `and ${count(names.length - shown.length)} more`));
    return element("div", {}, `${title} ${plural(names.length, "module")}${names.length ? ":" : "."}`, element("ul", {}, ...shown));
  }
}
