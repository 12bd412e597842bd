// The map: the whole trace on one line of time, with lanes for nested and parallel calls.

import { state, update, watch } from "whyops/trace-state";

const MOST = 60; // lanes in which the calls inside one call are kept apart

/**
 * Give each row a lane below its parent; what runs beside it has lanes of its own, with all inside. Each of several
 * agents has a band of lanes, the first one of which is free for its name. Returns the number of lanes.
 */
export const arrange = (trace) => {
  const agents = [...new Set(trace.rows.map(({ agent }) => agent))];
  trace.bands = [];
  let lanes = 0;
  for (const name of agents) {
    if (agents.length > 1) trace.bands.push({ name, lane: lanes++ });
    lanes = stack(trace, trace.rows.filter(({ agent }) => agent === name), lanes);
  }
  return Math.max(1, lanes);
};

/** Give some rows their lanes, from a lane on. Returns the number of the lane after them. */
const stack = (trace, rows, first) => {
  const top = { row: { lane: first - 1 }, inside: [] };
  const blocks = new Map();
  for (const row of rows) blocks.set(row, { row, from: row.start, to: trace.end(row), inside: [], above: 0, high: 1 });
  const around = ({ row }) => {
    let { parent } = row;
    while (parent && !blocks.has(parent)) ({ parent } = parent);
    return blocks.get(parent) ?? top;
  };
  for (const block of blocks.values()) around(block).inside.push(block);
  // A row comes after its parent, so the innermost blocks are packed first.
  for (const block of [...blocks.values()].reverse()) pack(block);
  pack(top);
  for (const block of blocks.values()) block.row.lane = around(block).row.lane + 1 + block.above;
  return first + top.high - 1;
};

/** Put the blocks inside another below each other where they overlap in time by more than the millisecond of the clock, and make it as long and high as they are. */
const pack = (block) => {
  const busy = []; // the end of the last block in each lane
  for (const one of block.inside.sort((a, b) => a.from - b.from)) {
    let above = 0;
    for (let lane = 0; lane < above + one.high && above < MOST; lane++) if ((busy[lane] ?? 0) > one.from + 1) above = lane + 1;
    one.above = above;
    for (let lane = above; lane < above + one.high; lane++) busy[lane] = one.to;
    block.from = Math.min(block.from, one.from);
    block.to = Math.max(block.to, one.to);
  }
  block.high = 1 + busy.length;
};

/** The colours of the page, for drawing on a canvas. */
export const colours = () => {
  const probe = document.createElement("span");
  document.body.append(probe);
  const of = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = ["llm", "tool", "agent", "bad", "line", "line-strong", "text", "dim", "accent", "bg", "hover", "raised"];
  const found = Object.fromEntries(names.map((name) => [name, of(name)]));
  probe.remove();
  return found;
};

/** Make a canvas as sharp as the screen; returns its context, and its size in CSS pixels. */
export const prepared = (canvas) => {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return { context, width, height };
};

/** The colour of a row, as one of the names of colours(). */
export const hue = (row) =>
  row.state === "error" ? "bad" : row.kind === "llm" || row.kind === "embedding" ? "llm" : row.kind === "tool" ? "tool" : "agent";

/** The map in *place*; *scrollTo* shows a row in the transcript. */
export class Overview {
  #frame = 0;
  #drag = null;

  constructor(place, trace, scrollTo) {
    this.canvas = place.querySelector("canvas");
    this.scrollTo = scrollTo;
    this.seen = [0, 0];
    this.range = null; // the visible part of the time, null unless zoomed
    place.hidden = false;
    this.grow(trace);
    new ResizeObserver(() => this.soon()).observe(this.canvas);
    document.addEventListener("whyops-theme", () => this.#recolour());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#recolour());
    this.canvas.addEventListener("pointerdown", (event) => this.#grab(event));
    this.canvas.addEventListener("pointermove", (event) => this.#pull(event));
    this.canvas.addEventListener("pointerup", (event) => this.#drop(event));
    this.canvas.addEventListener("wheel", (event) => this.#zoom(event), { passive: false });
    watch(() => this.soon());
  }

  /** Show another state of the trace. */
  grow(trace) {
    this.trace = trace;
    this.lanes = arrange(trace);
    this.bars = null;
    this.soon();
  }

  /** Mark the time that the transcript shows. */
  see(from, to) {
    this.seen = [from, to];
    this.soon();
  }

  soon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #recolour() {
    this.colours = null;
    this.bars = null;
    this.soon();
  }

  get #window() {
    return this.range ?? [0, Math.max(1, this.trace.duration)];
  }

  #draw() {
    this.colours ??= colours();
    const key = `${this.canvas.clientWidth} ${this.canvas.clientHeight} ${this.#window} ${this.trace.duration}`;
    if (!this.bars || this.bars.key !== key) this.#paint(key);
    const { context, width, height } = prepared(this.canvas);
    if (!width) return;
    context.drawImage(this.bars.canvas, 0, 0, width, height);
    const [start, end] = this.#window;
    const x = (ms) => ((ms - start) / (end - start)) * width;
    if (state.to) {
      context.fillStyle = this.colours.bg;
      context.globalAlpha = 0.72;
      context.fillRect(0, 0, x(Number(state.from)), height);
      context.fillRect(x(Number(state.to)), 0, width, height);
      context.globalAlpha = 1;
    }
    const left = Math.max(0, x(this.seen[0]));
    const right = Math.min(width, Math.max(x(this.seen[1]), left + 3));
    context.strokeStyle = this.colours.text;
    context.strokeRect(left + 0.5, 0.5, Math.max(2, right - left - 1), height - 1);
    const chosen = this.trace.at(Number(state.e));
    if (chosen) {
      context.fillStyle = this.colours.accent;
      context.fillRect(Math.round(x(chosen.start)) - 1, 0, 2, height);
    }
  }

  /** Paint the bars once. Moving parts are drawn over them. */
  #paint(key) {
    const canvas = document.createElement("canvas");
    const scale = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    canvas.width = Math.max(1, width * scale);
    canvas.height = Math.max(1, height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const [start, end] = this.#window;
    const lane = Math.min(9, height / this.lanes);
    const last = new Int32Array(this.lanes).fill(-1);
    const x = (ms) => ((ms - start) / (end - start)) * width;
    const failed = [];
    for (const row of this.trace.rows) {
      // A bar that begins at the very end is still visible.
      const from = Math.min(Math.max(0, x(row.start)), width - 2);
      const to = Math.min(width, x(this.trace.end(row)));
      if (to < 0 || x(row.start) > width) continue;
      const bar = [from, row.lane * lane, Math.max(1, to - from), Math.max(1, lane - 1)];
      if (row.state === "error") failed.push(bar);
      // Painting a painted pixel again changes nothing.
      else if (to > last[row.lane] || from < last[row.lane] - width) {
        context.fillStyle = this.colours[hue(row)];
        context.globalAlpha = row.kind === "step" || row.kind === "event" ? 0.35 : 0.85;
        context.fillRect(...bar);
        last[row.lane] = Math.floor(to);
      }
    }
    context.globalAlpha = 1;
    context.fillStyle = this.colours.bad;
    for (const [left, top, wide, high] of failed) context.fillRect(left, top, Math.max(2, wide), high);
    this.bars = { key, canvas };
  }

  #time(event) {
    const box = this.canvas.getBoundingClientRect();
    const [start, end] = this.#window;
    return start + ((event.clientX - box.left) / box.width) * (end - start);
  }

  #grab(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.#drag = { x: event.clientX, time: this.#time(event) };
  }

  #pull(event) {
    if (!this.#drag || Math.abs(event.clientX - this.#drag.x) < 4) return;
    const [from, to] = [this.#drag.time, this.#time(event)].sort((one, other) => one - other);
    update({ from: Math.max(0, Math.floor(from)), to: Math.ceil(to) });
  }

  #drop(event) {
    const drag = this.#drag;
    this.#drag = null;
    if (!drag) return;
    if (Math.abs(event.clientX - drag.x) < 4) update({ from: "", to: "" });
    const time = Math.min(drag.time, this.#time(event));
    let near = null;
    for (const row of this.trace.rows) {
      const distance = Math.abs(row.start - time);
      if (row.kind !== "step" && (!near || distance < near.distance)) near = { row, distance };
    }
    if (near) this.scrollTo(near.row);
  }

  #zoom(event) {
    if (event.ctrlKey || Math.abs(event.deltaY) < Math.abs(event.deltaX)) return;
    event.preventDefault();
    this.range = zoomed(this.#window, this.#time(event), event.deltaY, this.trace.duration);
    this.soon();
  }
}

/** The part of the time to show after a turn of the wheel over *time*; null for all of it. */
export const zoomed = ([start, end], time, turned, duration) => {
  const factor = Math.exp(Math.max(-1, Math.min(1, turned / 300)));
  const from = Math.max(0, time - (time - start) * factor);
  const to = Math.min(duration, time + (end - time) * factor);
  if (to - from < 1) return [start, end];
  return from <= 0 && to >= duration ? null : [from, to];
};
