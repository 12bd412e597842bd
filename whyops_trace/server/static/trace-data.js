// The tree of the trace: its columns as rows, in the order of reading.

const KINDS = { t: "tool", l: "llm", s: "step", m: "embedding", e: "event" };
const STATES = { ".": "ok", x: "error", c: "cancelled", r: "running", u: "unfinished" };

/** Names of states, by letter. */
export const WORDS = { ok: "ok", error: "failed", cancelled: "cancelled", running: "running", unfinished: "no end seen" };

const decoded = (columns, depth = 0) =>
  Array.from(columns.kind ?? "", (kind, i) => ({
    kind: KINDS[kind],
    state: STATES[columns.state[i]],
    depth: columns.depth[i] + depth,
    step: columns.step[i],
    name: columns.names[columns.name[i]],
    model: columns.names[columns.model[i]],
    agent: columns.names[columns.agent[i]],
    start: columns.start[i],
    took: columns.took[i],
    tokens: columns.tokens[i],
    cost: columns.cost[i] / 1e6,
    asked: columns.asked[i],
    turn: columns.turn[i],
    section: columns.section[i],
    text: columns.texts[i] ?? "",
    hidden: columns.hidden[i] ?? 0,
    index: 0,
    size: 1, // number of rows, with all below it
    parent: null,
    lane: 0,
  }));

/** All rows of a trace, and ways to find one. */
export class Trace {
  constructor(skeleton) {
    this.rows = decoded(skeleton);
    this.version = skeleton.version;
    this.began = skeleton.began;
    this.previewed = skeleton.previewed; // true if every row has its text
    this.find(skeleton.findings ?? []);
    this.links = skeleton.links;
    this.duration = skeleton.duration;
    this.#arrange();
  }

  /** Set the findings. */
  find(findings) {
    this.findings = findings.map(([code, severity, title, steps]) => ({ code, severity, title, steps }));
  }

  #arrange() {
    const open = [];
    this.byStep = new Map();
    this.turns = [];
    this.failures = [];
    this.rows.forEach((row, index) => {
      row.index = index;
      row.size = 1;
      open.length = Math.min(open.length, row.depth);
      row.parent = open.at(-1) ?? null;
      open.push(row);
      if (!this.byStep.has(row.step)) this.byStep.set(row.step, row);
      if (row.turn) this.turns.push(row);
      if (row.state === "error") this.failures.push(row);
      this.duration = Math.max(this.duration, row.start + Math.max(0, row.took));
    });
    for (let i = this.rows.length - 1; i >= 0; i--) {
      const { parent, size } = this.rows[i];
      if (parent) parent.size += size;
    }
    const byStep = (one, other) => one.step - other.step;
    this.turns.sort(byStep);
    this.failures.sort(byStep);
    this.open = this.rows.filter(({ state }) => state === "running");
  }

  /** Extend the open calls to *now*, in ms since the epoch; returns true if there are any. */
  tick(now) {
    for (const row of this.open) {
      row.took = Math.max(0, now - this.began - row.start);
      this.duration = Math.max(this.duration, row.start + row.took);
    }
    return this.open.length > 0;
  }

  /** The end of a row for drawing: without one the end of all, and at least a millisecond after the beginning. */
  end({ state, start, took }) {
    const endless = took < 0 && (state === "running" || state === "unfinished");
    return Math.max(endless ? this.duration : start + took, start + 1);
  }

  /** The row that shows a step: its own, or the row of the last step before it. */
  at(step) {
    const own = this.byStep.get(step);
    if (own || !step) return own ?? null;
    let near = null;
    for (const row of this.rows) if (row.step < step && (!near || row.step > near.step)) near = row;
    return near;
  }

  /** Insert the rows below another that the server had left out. */
  insert(row, columns) {
    const below = decoded(columns, row.depth + 1);
    this.rows.splice(row.index + 1, row.size - 1, ...below);
    row.hidden = 0;
    this.#arrange();
  }
}

/** A duration in readable form. */
export const duration = (ms) => {
  if (ms < 0) return "";
  if (ms < 1) return "<1 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} m`;
};

/** A count of tokens in readable form. */
export const tokens = (count) => {
  if (count < 1000) return String(count);
  const [size, unit] = count >= 999500 ? [1e6, "M"] : [1e3, "k"];
  return `${(count / size).toFixed(count / size < 9.95 ? 1 : 0)}${unit}`;
};

/** An amount of US dollars in readable form. */
export const dollars = (amount) => {
  if (!amount) return "$0";
  if (amount >= 1) return `$${amount.toFixed(2)}`;
  return `$${amount.toFixed(Math.max(4, 1 - Math.floor(Math.log10(amount))))}`;
};

const HIDDEN =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** A text with its invisible characters spelled out. */
export const visible = (text) =>
  text.replace(/\r\n/g, "\n").replace(HIDDEN, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });

/** Make an element: `make("p", { class: "dim" }, "text", child)`. Texts become text, never markup. */
export const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (typeof child === "string" ? visible(child) : child)));
  return made;
};
