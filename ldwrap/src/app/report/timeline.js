
// The timeline: rows for phases and threads, bars for events, on a canvas.
//
// A canvas of the size of what can be seen, however many rows there are: thousands of elements would be slow to lay out.

/** Puts events into lanes: [{title, thread, events}], and gives each event its `lane`. Events of a lane do not overlap. */
function lanesOf(trace, events) {
  const lanes = [];
  const threads = new Map();
  for (const event of events) {
    const key = event.kind === PHASE ? -1 : event.thread;
    if (!threads.has(key)) threads.set(key, []);
    threads.get(key).push(event);
  }
  const title = (thread) => (thread < 0 ? "Phases" : trace.threads[thread] || `thread ${thread}`);
  const collator = new Intl.Collator("en", { numeric: true });
  const keys = [...threads.keys()].sort((a, b) => (a < 0 ? -1 : b < 0 ? 1 : collator.compare(title(a), title(b)) || a - b));
  for (const thread of keys) {
    const first = lanes.length;
    const byModule = new Map();
    const sorted = threads.get(thread).sort((a, b) => a.start - b.start || b.length - a.length);
    const ends = [];
    for (const event of sorted.filter(({ kind }) => kind !== WAIT)) {
      let free = ends.findIndex((end) => end <= event.start);
      if (free < 0) free = ends.length;
      ends[free] = event.start + event.length;
      event.lane = first + free;
      if (event.kind === BACKEND) byModule.set(event.name, event.lane);
    }
    for (const event of sorted.filter(({ kind }) => kind === WAIT)) {
      event.lane = byModule.has(event.module) ? byModule.get(event.module) : first;
    }
    for (let n = 0; n < Math.max(ends.length, 1); n++) {
      lanes.push({ title: title(thread), isFirst: n === 0, events: [] });
    }
    for (const event of sorted) lanes[event.lane].events.push(event);
  }
  return lanes;
}

const AXIS = 24;
const GUTTER = 132;

class Timeline {
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.view = null;
    this.lanes = [];
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("scroll", () => this.draw());
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.listenToPointer();
    for (const [id, act] of [["zoom-in", () => this.zoom(0.5)], ["zoom-out", () => this.zoom(2)], ["zoom-all", () => this.whole()]]) {
      byId(id).addEventListener("click", act);
    }
  }

  show(view) {
    this.view = view;
    this.lanes = lanesOf(view.trace, view.events);
    this.end = Math.max(1, view.trace.total_us, most(view.events, ({ start, length }) => start + length));
    this.height = this.lanes.length <= 24 ? 20 : this.lanes.length <= 80 ? 12 : 6;
    this.box.scrollTop = 0;
    this.whole();
  }

  whole() {
    this.look(0, this.end);
  }

  /** Shows this span of time, in microseconds, or as much of it as there is. */
  look(from, span) {
    this.span = Math.min(Math.max(span, 20), this.end);
    this.from = Math.min(Math.max(from, 0), this.end - this.span);
    this.draw();
  }

  /** Shows more or less time, around a moment; without one around the selected bar, or the middle. */
  zoom(factor, around) {
    const selected = this.view && this.view.selected;
    const middle = this.from + this.span / 2;
    const inView = selected && selected.start < this.from + this.span && selected.start + selected.length > this.from;
    const at = around !== undefined ? around : inView ? selected.start + selected.length / 2 : middle;
    const span = Math.min(Math.max(this.span * factor, 20), this.end);
    this.look(at - ((at - this.from) / this.span) * span, span);
  }

  /** Scrolls until an event can be seen, and draws it as selected. */
  reveal(event) {
    if (event.start + event.length > this.from + this.span || event.start < this.from) {
      const span = Math.max(this.span, event.length * 1.2);
      this.look(event.start + event.length / 2 - span / 2, span);
    }
    const top = event.lane * this.height;
    const visible = this.box.clientHeight - AXIS - this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top > this.box.scrollTop + visible) this.box.scrollTop = top - visible;
    this.draw();
  }

  x(time) {
    return GUTTER + ((time - this.from) / this.span) * (this.width - GUTTER - 8);
  }

  timeAt(x) {
    return this.from + ((x - GUTTER) / (this.width - GUTTER - 8)) * this.span;
  }

  draw() {
    if (!this.view || !this.box.clientWidth) return;
    const total = AXIS + this.lanes.length * this.height + 6;
    const seen = Math.min(total, 458);
    const ratio = window.devicePixelRatio || 1;
    this.width = this.box.clientWidth;
    this.canvas.style.height = `${seen}px`;
    byId("lanes-height").style.height = `${total - seen}px`;
    if (this.canvas.width !== Math.round(this.width * ratio)) this.canvas.width = Math.round(this.width * ratio);
    if (this.canvas.height !== Math.round(seen * ratio)) this.canvas.height = Math.round(seen * ratio);
    const c = this.context;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.width, seen);
    this.colours = coloursNow();
    this.drawAxis(c, seen);
    c.save();
    c.beginPath();
    c.rect(0, AXIS, this.width, seen - AXIS);
    c.clip();
    const first = Math.floor(this.box.scrollTop / this.height);
    const last = Math.min(this.lanes.length, first + Math.ceil(seen / this.height) + 1);
    for (let n = first; n < last; n++) this.drawLane(c, this.lanes[n], this.top(n), n);
    this.drawSelected(c);
    c.restore();
  }

  top(lane) {
    return AXIS + 3 + lane * this.height - this.box.scrollTop;
  }

  drawAxis(c, height) {
    const rough = this.span / Math.max(2, (this.width - GUTTER) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough));
    c.font = "12px system-ui, sans-serif";
    c.textBaseline = "middle";
    c.lineWidth = 1;
    for (let at = Math.ceil(this.from / step) * step; at <= this.from + this.span; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      c.strokeStyle = this.colours("--line");
      c.beginPath();
      c.moveTo(x, AXIS - 6);
      c.lineTo(x, height);
      c.stroke();
      c.fillStyle = this.colours("--quiet");
      const text = tickText(at, step);
      const wide = c.measureText(text).width;
      c.fillText(text, Math.min(x - wide / 2, this.width - wide - 4), AXIS / 2 - 2);
    }
  }

  drawLane(c, lane, top, number) {
    const height = this.height > 8 ? this.height - 3 : this.height - 1;
    let drawn = -1;
    let colour = "";
    // Waits last: they are part of what a bar shows.
    for (const waits of [false, true]) {
      for (const event of lane.events) {
        if ((event.kind === WAIT) !== waits) continue;
        const left = Math.max(this.x(event.start), GUTTER);
        const right = Math.min(this.x(event.start + event.length), this.width);
        if (right < GUTTER || left > this.width) continue;
        const own = colourOf(event);
        const wide = Math.max(right - left - 0.5, 1);
        if (wide <= 1 && left < drawn && own === colour) continue;
        [drawn, colour] = [left + 1, own];
        c.fillStyle = this.colours(own);
        const bar = waits ? Math.max(2, height * 0.4) : height;
        c.fillRect(left, top + height - bar, wide, bar);
        if (wide > 60 && height > 12 && !waits) this.drawName(c, event, left, wide, top + height / 2);
      }
    }
    this.drawTitle(c, lane, top + height / 2, number);
  }

  drawName(c, event, left, wide, middle) {
    const name = event.kind === PHASE ? phase(event.name).text : shortName(event.name);
    c.save();
    c.beginPath();
    c.rect(left, middle - 20, wide - 4, 40);
    c.clip();
    c.font = "12px system-ui, sans-serif";
    c.fillStyle = this.colours("--ground");
    c.fillText(name, left + 5, middle + 0.5);
    c.restore();
  }

  drawTitle(c, lane, middle, number) {
    // In low lanes, titles that do not touch.
    const every = Math.ceil(14 / this.height);
    if (!lane.isFirst || number % every) return;
    c.save();
    c.beginPath();
    c.rect(0, middle - 10, GUTTER - 8, 20);
    c.clip();
    c.font = "12px system-ui, sans-serif";
    c.fillStyle = this.colours("--quiet");
    c.fillText(lane.title, 10, middle + 0.5);
    c.restore();
  }

  drawSelected(c) {
    const event = this.view.selected;
    if (!event) return;
    const left = this.x(event.start);
    const right = Math.max(this.x(event.start + event.length), left + 3);
    if (right < GUTTER || left > this.width) return;
    c.strokeStyle = this.colours("--ink");
    c.lineWidth = 2;
    const begin = Math.max(left, GUTTER) - 1;
    c.strokeRect(begin, this.top(event.lane) - 1, Math.min(right, this.width) + 1 - begin, this.height - (this.height > 8 ? 1 : 0));
    c.lineWidth = 1;
  }

  /** The event at a place of the canvas: the one whose bar is nearest, within three pixels. */
  at(x, y) {
    const lane = this.lanes[Math.floor((y - AXIS - 3 + this.box.scrollTop) / this.height)];
    if (!lane || y < AXIS || x < GUTTER) return null;
    let best = null;
    let distance = 4;
    for (const event of lane.events) {
      const off = Math.max(this.x(event.start) - x, x - this.x(event.start + event.length), 0);
      if (off < distance || (off === 0 && event.kind === WAIT)) [best, distance] = [event, off];
    }
    return best;
  }

  listenToPointer() {
    let drag = null;
    const place = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = { x: event.clientX, from: this.from, moved: false };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!drag) {
        this.tip(this.at(...place(event)), event);
        return;
      }
      const off = event.clientX - drag.x;
      drag.moved = drag.moved || Math.abs(off) > 3;
      if (!drag.moved) return;
      this.tip(null);
      this.canvas.classList.add("dragged");
      this.look(drag.from - (off / (this.width - GUTTER - 8)) * this.span, this.span);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (drag && !drag.moved) this.choose(this.at(...place(event)));
      drag = null;
      this.canvas.classList.remove("dragged");
    });
    this.canvas.addEventListener("pointercancel", () => { drag = null; });
    this.canvas.addEventListener("pointerleave", () => this.tip(null));
    this.canvas.addEventListener("dblclick", (event) => this.zoom(0.25, this.timeAt(place(event)[0])));
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.timeAt(Math.max(x, GUTTER)));
  }

  tip(event, pointer) {
    const tip = byId("tip");
    tip.hidden = !event;
    if (!event) return;
    tip.replaceChildren(...this.view.details(event).slice(0, 2));
    tip.style.left = `${Math.min(pointer.clientX + 12, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(pointer.clientY + 16, window.innerHeight - tip.offsetHeight - 8)}px`;
  }

  choose(event) {
    this.view.select(event);
    if (event) this.reveal(event);
    else this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !this.view) return;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (step && event.shiftKey) {
      if (sideways) this.look(this.from + step * this.span * 0.2, this.span);
      else this.box.scrollTop += step * this.height;
    } else if (step) this.go(step, sideways);
    else if (event.key === "+" || event.key === "=") this.zoom(0.5);
    else if (event.key === "-") this.zoom(2);
    else if (event.key === "0") this.whole();
    else if (event.key === "Escape") this.choose(null);
    else return;
    event.preventDefault();
  }

  /** Selects the next bar of the lane, or the one that ran then in the next lane. */
  go(step, sideways) {
    const selected = this.view.selected;
    const drawn = (lane) => lane.events.filter(({ kind }) => kind !== WAIT);
    let lane = selected ? selected.lane : this.lanes.findIndex(({ events }) => events.some(({ kind }) => kind === BACKEND));
    if (!selected || !sideways) {
      if (selected) lane += step;
      while (this.lanes[lane] && !drawn(this.lanes[lane]).length) lane += step;
      if (!this.lanes[lane]) return;
      const moment = selected ? selected.start + selected.length / 2 : this.from;
      const distance = (e) => Math.max(e.start - moment, moment - e.start - e.length, 0);
      this.choose(drawn(this.lanes[lane]).reduce((a, b) => (distance(b) < distance(a) ? b : a)));
      return;
    }
    const events = selected.kind === WAIT ? this.lanes[lane].events : drawn(this.lanes[lane]);
    const next = events[events.indexOf(selected) + step];
    if (next) this.choose(next);
  }
}

/** The name of the colour of an event's bar. */
function colourOf(event) {
  if (event.kind === WAIT) return "--wait";
  return event.kind === PHASE ? phase(event.name).colour : source(event.source).colour;
}

/** A moment, as exact as the steps between moments are. */
function tickText(us, step) {
  if (us === 0) return "0";
  if (step < 1e3) return `${fixed(us / 1e3, step < 10 ? 3 : step < 100 ? 2 : 1)} ms`;
  if (step < 1e6 && us < 1e6) return `${Math.round(us / 1e3)} ms`;
  return `${fixed(us / 1e6, step < 1e4 ? 3 : step < 1e5 ? 2 : step < 1e6 ? 1 : 0)} s`;
}

/** Gives the style's colours as a canvas takes them. */
function coloursNow() {
  const found = new Map();
  const probe = byId("tip");
  return (name) => {
    if (!found.has(name)) {
      probe.style.color = `var(${name})`;
      found.set(name, getComputedStyle(probe).color);
      probe.style.color = "";
    }
    return found.get(name);
  };
}
