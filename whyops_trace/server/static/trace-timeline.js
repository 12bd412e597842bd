// The timeline: each call as a bar of its duration, and parallel calls in lanes of their own.

import { WORDS, dollars, duration, make, tokens } from "whyops/trace-data";
import { arrange, colours, hue, prepared, zoomed } from "whyops/trace-map";
import { say, state, update, watch } from "whyops/trace-state";

const LANE = 20;
const AXIS = 22;

/** The timeline of *trace* in *place*; *open* shows the detail of the chosen bar. */
export class Timeline {
  #frame = 0;
  #drag = null;

  constructor(place, trace, open) {
    this.place = place;
    this.open = open;
    this.top = 0;
    this.range = null;
    this.canvas = make("canvas");
    this.tip = make("div", { class: "tip", hidden: true });
    place.replaceChildren(this.canvas, this.tip);
    place.setAttribute("aria-hidden", "true");
    this.grow(trace);
    new ResizeObserver(() => this.soon()).observe(place);
    document.addEventListener("whyops-theme", () => this.soon(true));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.soon(true));
    this.canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => this.#grab(event));
    this.canvas.addEventListener("pointermove", (event) => this.#moved(event));
    this.canvas.addEventListener("pointerup", (event) => this.#drop(event));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.canvas.addEventListener("dblclick", () => this.open());
    watch((changed) => {
      if (changed.has("from") || changed.has("to")) this.range = state.to ? [Number(state.from), Number(state.to)] : null;
      if (changed.has("e")) this.#reveal();
      this.soon();
    });
    if (state.to) this.range = [Number(state.from), Number(state.to)];
  }

  /** Show another state of the trace. */
  grow(trace) {
    this.trace = trace;
    this.lanes = arrange(trace);
    // By lane, in the order of time, for a binary search of the bar under the pointer.
    this.byLane = Array.from({ length: this.lanes }, () => []);
    for (const row of trace.rows) this.byLane[row.lane].push(row);
    for (const lane of this.byLane) lane.sort((one, other) => one.start - other.start);
    this.soon();
  }

  soon(recolour = false) {
    if (recolour) this.colours = null;
    if (this.place.hidden) return;
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  get #window() {
    return this.range ?? [0, Math.max(1, this.trace.duration)];
  }

  #reveal() {
    const row = this.trace.at(Number(state.e));
    if (!row || this.place.hidden) return;
    const [start, end] = this.#window;
    if (row.start < start || row.start > end) {
      const from = Math.max(0, row.start - (end - start) / 2);
      this.range = [from, from + (end - start)];
    }
    const y = row.lane * LANE;
    const room = this.canvas.clientHeight - AXIS - LANE;
    if (y < this.top || y > this.top + room) this.#scroll(y - room / 2);
  }

  #scroll(top) {
    this.top = Math.max(0, Math.min(top, this.lanes * LANE - this.canvas.clientHeight + AXIS + LANE));
  }

  #draw() {
    this.colours ??= colours();
    const { context, width, height } = prepared(this.canvas);
    const [start, end] = this.#window;
    const scale = width / (end - start);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    this.#ticks(context, width, height);
    this.#names(context, width);
    const chosen = this.trace.at(Number(state.e));
    this.byLane.forEach((lane, number) => {
      const y = AXIS + number * LANE - this.top;
      if (y < AXIS - LANE || y > height) return;
      let painted = -1;
      for (const row of lane) {
        const x = (row.start - start) * scale;
        const wide = Math.max(2, (this.trace.end(row) - row.start) * scale - 1);
        if (x > width) break;
        // Bars thinner than a pixel merge. A failed one is never painted over or left out.
        if (x + wide < 0 || (x + wide < painted && row.state !== "error" && row !== chosen)) continue;
        painted = x + wide;
        // A bar that begins at the very end is still visible.
        this.#bar(context, row, Math.min(Math.max(x, -2), width - 3), y, Math.min(wide + Math.min(x + 2, 0), width + 4), row === chosen);
      }
    });
  }

  #bar(context, row, x, y, wide, chosen) {
    const { colours: all } = this;
    context.globalAlpha = row.kind === "step" ? 0.3 : 0.22;
    context.fillStyle = all[hue(row)];
    context.fillRect(x, y + 2, wide, LANE - 4);
    context.globalAlpha = 1;
    context.fillRect(x, y + 2, Math.min(3, wide), LANE - 4);
    if (chosen) {
      context.strokeStyle = all.accent;
      context.lineWidth = 2;
      context.strokeRect(x, y + 2, wide, LANE - 4);
      context.lineWidth = 1;
    }
    if (wide < 34) return;
    context.save();
    context.beginPath();
    context.rect(x, y, wide - 4, LANE);
    context.clip();
    context.fillStyle = row.state === "error" ? all.bad : all.text;
    context.fillText(`${row.state === "error" ? "✗ " : ""}${row.turn ? `Turn ${row.turn}` : row.name}  ${duration(row.took)}`, x + 7, y + LANE / 2);
    context.restore();
  }

  /** The name of each agent, in the lane above its calls. */
  #names(context, width) {
    for (const { name, lane } of this.trace.bands) {
      const y = AXIS + lane * LANE - this.top;
      if (y < AXIS) continue;
      context.fillStyle = this.colours.line;
      context.fillRect(0, y, width, 1);
      context.fillStyle = this.colours.dim;
      context.fillText(name, 4, y + LANE / 2);
    }
  }

  #ticks(context, width, height) {
    const [start, end] = this.#window;
    const rough = (end - start) / Math.max(2, width / 130);
    const size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * size).find((one) => one >= rough);
    for (let time = Math.ceil(start / step) * step; time <= end; time += step) {
      const x = Math.round(((time - start) / (end - start)) * width) + 0.5;
      context.fillStyle = this.colours.line;
      context.fillRect(x, 0, 1, height);
      context.fillStyle = this.colours.dim;
      context.fillText(time ? duration(time) : "0", x + 4, AXIS / 2);
    }
  }

  #under(event) {
    const box = this.canvas.getBoundingClientRect();
    const [start, end] = this.#window;
    const lane = this.byLane[Math.floor((event.clientY - box.top - AXIS + this.top) / LANE)];
    if (!lane || event.clientY - box.top < AXIS) return null;
    const pixel = (end - start) / box.width;
    const time = start + (event.clientX - box.left) * pixel;
    let [low, high] = [0, lane.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lane[middle].start <= time) low = middle + 1;
      else high = middle;
    }
    for (let i = low - 1; i >= Math.max(0, low - 3); i--) {
      if (time <= this.trace.end(lane[i]) + 3 * pixel) return lane[i];
    }
    return null;
  }

  #wheel(event) {
    if (event.ctrlKey) return;
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    const [start, end] = this.#window;
    const width = end - start;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const by = ((event.deltaX || event.deltaY) / box.width) * width;
      const from = Math.max(0, Math.min(start + by, this.trace.duration - width));
      this.range = this.range && [from, from + width];
    } else {
      const time = start + ((event.clientX - box.left) / box.width) * width;
      this.range = zoomed([start, end], time, event.deltaY, this.trace.duration);
    }
    this.soon();
  }

  #grab(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.#drag = { x: event.clientX, y: event.clientY, top: this.top, range: this.range, moved: false };
  }

  #moved(event) {
    const drag = this.#drag;
    if (!drag) return this.#point(event);
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.moved ||= Math.abs(dx) + Math.abs(dy) > 4;
    if (!drag.moved) return;
    this.#scroll(drag.top - dy);
    if (drag.range) {
      const width = drag.range[1] - drag.range[0];
      const from = Math.max(0, drag.range[0] - (dx / this.canvas.clientWidth) * width);
      this.range = [from, from + width];
    }
    this.soon();
  }

  #drop(event) {
    const drag = this.#drag;
    this.#drag = null;
    if (drag?.moved) return;
    const row = this.#under(event);
    if (row) update({ e: row.step });
  }

  #point(event) {
    const row = this.#under(event);
    this.tip.hidden = !row;
    if (!row) return;
    const facts = [row.state === "ok" ? "" : WORDS[row.state], duration(row.took), row.tokens ? `${tokens(row.tokens)} tokens` : "", row.cost ? dollars(row.cost) : ""];
    this.tip.replaceChildren(
      make("b", {}, row.turn ? `Turn ${row.turn} ${row.model || row.name}` : `${row.kind} ${row.name}`),
      make("div", { class: "dim" }, facts.filter(Boolean).join(" · ")),
      ...(row.text ? [make("div", {}, row.text)] : []),
    );
    const box = this.place.getBoundingClientRect();
    this.tip.style.left = `${Math.min(event.clientX - box.left + 14, Math.max(0, box.width - 430))}px`;
    this.tip.style.top = `${event.clientY - box.top + 16}px`;
  }

  /** Announce the chosen bar to screen readers. */
  tell() {
    const row = this.trace.at(Number(state.e));
    if (row) say(`${row.kind} ${row.name}, ${WORDS[row.state]}, begins after ${duration(row.start)}, takes ${duration(row.took)}`);
  }
}
