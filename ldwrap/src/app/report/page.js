
// What is on the page at first, the choice of a link, and the choice of colours.

const timeline = new Timeline(byId("lanes"));

/** Shows the link of a trace, by its number. */
function showTrace(n) {
  timeline.show(new LinkView(data.traces[n]));
}

function showTraces() {
  const traces = data.traces;
  const section = byId("one");
  section.querySelector(".empty").hidden = traces.length > 0;
  section.querySelector(".content").hidden = traces.length === 0;
  if (!traces.length) {
    section.before(byId("all"));
    return;
  }
  const name = ({ output, file, total_us, started_us: began }) =>
    [output || file, time(total_us), ...(began ? [moment(began)] : [])].join(", ");
  byId("link").replaceChildren(...traces.map((trace, n) => element("option", { value: n }, name(trace))));
  byId("link").addEventListener("change", (event) => showTrace(Number(event.target.value)));
  byId("choose").hidden = traces.length < 2;
  if (traces.length < 2) byId("one-title").textContent = `Link of ${traces[0].output || traces[0].file}`;
  showTrace(0);
}

function chooseColours() {
  const radios = [...document.querySelectorAll("#theme input")];
  const apply = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    timeline.draw();
  };
  // A browser may forbid pages from files to keep anything.
  const keep = (act) => { try { return act(); } catch { return null; } };
  const kept = radios.find(({ value }) => value === keep(() => localStorage.getItem("ldwrap-colours")));
  if (kept) kept.checked = true;
  for (const radio of radios) {
    radio.addEventListener("change", () => {
      keep(() => localStorage.setItem("ldwrap-colours", radio.value));
      apply(radio.value);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.draw());
  apply(kept ? kept.value : "");
}

byId("sources").textContent = data.sources.length ? `From ${data.sources.join(", ")}` : "";
byId("notes").hidden = data.notes.length === 0;
byId("notes").replaceChildren(...data.notes.map((note) => element("li", {}, note)));
chooseColours();
showTraces();
showLinks();
// When all of it can be seen, in milliseconds from the start of loading.
requestAnimationFrame(() => setTimeout(() => {
  document.documentElement.dataset.shownAfterMs = Math.round(performance.now());
}));
