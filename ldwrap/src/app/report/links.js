
// The links of reports.

/** A link's phases by name, in microseconds. */
const phasesOf = (link) => new Map((link.phases || []).map(([name, ms]) => [name, ms * 1e3]));
const isSplit = (link) => link.action === "split";
const outcome = (link) => ({ split: "through ldwrap", forward: "left to lld" })[link.action] || link.action;
const known = (value) => (value === undefined ? null : value);

function showLinks() {
  const links = data.links;
  const section = byId("all");
  section.querySelector(".empty").hidden = links.length > 0;
  section.querySelector(".content").hidden = links.length === 0;
  if (!links.length) return;
  const split = links.filter(isSplit);
  const modules = sum(split, (link) => link.modules || 0);
  const hits = sum(split, (link) => (link.cache ? link.cache.hits || 0 : 0));
  const left = links.length - split.length;
  const parts = [left ? `${plural(links.length, "link")}: ${count(split.length)} through ldwrap, ${count(left)} left to lld.`
    : `${plural(links.length, "link")}, all of them through ldwrap.`];
  if (modules) parts.push(`${plural(modules, "module")}, ${count(hits)} of them (${share(hits, modules)}) from a cache.`);
  if (split.length) parts.push(`${time(sum(split, (link) => (link.total_ms || 0) * 1e3))} in links through ldwrap.`);
  const saved = sum(split, (link) => (link.cache && link.cache.saved_ms) || 0);
  if (saved) parts.push(`Compiling what came from a cache once took ${time(saved * 1e3)}.`);
  byId("all-summary").textContent = parts.join(" ");
  showHistory(split.slice(-60), split.length);
  const totals = new Map();
  for (const link of split) {
    for (const [name, us] of phasesOf(link)) totals.set(name, (totals.get(name) || 0) + us);
  }
  showPhases(byId("all-phases"), inOrder(totals.keys()).map((name) => [name, totals.get(name)]));
  showLinkTable(links);
}

/** Where the backends of a link ran. */
const executor = ({ executor: name }) =>
  name === undefined ? null : { local: "lld's threads", clang: "clang, here", remote: "server and lld" }[name] || name;

function showLinkTable(links) {
  const why = (link) => [link.reason, link.remote && link.remote.trouble, ...(link.complaints || [])].filter(Boolean);
  const columns = [
    { title: "Output", kind: "text", value: (link) => link.output || "(unknown)" },
    { title: "No.", kind: "number", value: (link) => link.number },
    { title: "Outcome", kind: "text", value: outcome },
    { title: "Backends", kind: "text", value: executor },
    { title: "Modules", kind: "number", value: (link) => known(link.modules) },
    { title: "From a cache", kind: "number", value: (link) => known(link.cache && link.cache.hits) },
    { title: "Made by server", kind: "number", value: (link) => known(link.remote && link.remote.executed) },
    { title: "Compiled by lld", kind: "number", value: (link) => known(link.compiled_by_lld) },
    { title: "Sent", kind: "bytes", value: (link) => known(link.remote && link.remote.bytes_up) },
    { title: "Received", kind: "bytes", value: (link) => known(link.remote && link.remote.bytes_down) },
    { title: "Time", kind: "time", value: (link) => (isSplit(link) && link.total_ms !== undefined ? link.total_ms * 1e3 : null) },
    { title: "Saved", kind: "time", value: (link) => (link.cache && link.cache.saved_ms !== undefined ? link.cache.saved_ms * 1e3 : null) },
    { title: "Reason", kind: "text", value: (link) => why(link).join("; ") || null },
  ];
  links.forEach((link, n) => { link.number = n + 1; });
  new Table(byId("links"), columns, links, {
    label: "All links", what: ["link", "links"], empty: "No link.", sort: "No.", filter: true,
    choices: { label: "Outcome", of: outcome },
  });
}

/** Columns of the last links: modules by hit and miss, and time by phase. */
function showHistory(links, all) {
  if (!links.length) return;
  const hits = (link) => (link.cache ? link.cache.hits || 0 : 0);
  const misses = (link) => (link.cache ? link.cache.misses || 0 : 0);
  const title = links.length < all ? `of the last ${links.length} links` : "of each link";
  const rows = [
    { title: `Modules ${title}`, text: count, parts: [
      { text: "from a cache", colour: "--cache", of: hits },
      { text: "compiled", colour: "--lld", of: misses },
    ] },
    { title: `Time ${title}`, text: time, parts: inOrder(new Set(links.flatMap((link) => [...phasesOf(link).keys()])))
      .map((name) => ({ ...phase(name), of: (link) => phasesOf(link).get(name) || 0 })) },
  ];
  const grids = rows.map(({ title, text, parts }) => {
    const total = (link) => sum(parts, ({ of }) => of(link));
    const largest = most(links, total) || 1;
    const column = (link) => {
      const said = [`${link.output || "(unknown)"}: ${text(total(link))}`, ...parts.map((part) => `${part.text}: ${text(part.of(link))}`)];
      const bars = parts.map((part) => {
        const bar = element("div");
        bar.style.height = `${(part.of(link) / largest) * 100}%`;
        bar.style.background = `var(${part.colour})`;
        return bar;
      });
      return element("div", { className: "column", title: said.join("\n") }, ...bars);
    };
    const marks = element("ul", { className: "legend" });
    legend(marks, parts);
    return element("div", { className: "history", role: "group", ariaLabel: title },
      element("div", { className: "label" }, element("strong", {}, title), marks),
      element("div", { className: "scale" }, element("span", {}, text(largest)), element("span", {}, "0")),
      element("div", { className: "columns", role: "img", ariaLabel: `${title}; the table below has the numbers` }, ...links.map(column)));
  });
  byId("history").replaceChildren(...grids, element("p", { className: "quiet" }, "Oldest link on the left. Links that were left to lld are only in the table."));
}
