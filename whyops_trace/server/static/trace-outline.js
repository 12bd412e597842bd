// The outline: a tree grid of every node. Only the visible rows are in the page.

import { WORDS, dollars, duration, make, tokens } from "whyops/trace-data";
import { Previews } from "whyops/trace-previews";
import { source } from "whyops/trace-source";
import { state, update } from "whyops/trace-state";

const HEIGHT = matchMedia("(pointer: coarse)").matches ? 44 : 24; // as in the style sheet
const SPARE = 8; // rows above and below the visible ones

const remembered = (key) => {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? [];
  } catch {
    return []; // no storage, or foreign content in it
  }
};

/** The tree grid in *nav* of the rows of *trace*; *open* shows the detail of one, *picked* is called after a click on one. */
export class Outline {
  #pool = [];
  #shown = [];
  #frame = 0;
  #typed = "";
  #typedAt = 0;

  constructor(nav, trace, open, picked) {
    this.trace = trace;
    this.open = open;
    this.picked = picked;
    this.key = `whyops-folded ${document.getElementById("trace").dataset.base}`;
    this.folded = new Set(remembered(this.key));
    this.pad = make("div", { class: "pad", role: "presentation" });
    this.grid = make("div", {
      class: "rows", role: "treegrid", tabindex: "0", "aria-label": "Outline", "aria-colcount": "4",
    }, this.pad);
    this.counted = make("span");
    const all = make("button", { type: "button", class: "quiet", click: () => this.toggleAll() }, "fold all");
    this.all = all;
    nav.replaceChildren(this.grid, make("div", { class: "foot" }, this.counted, all));
    this.previews = new Previews(trace, () => this.soon());
    this.grid.addEventListener("scroll", () => this.soon(), { passive: true });
    this.grid.addEventListener("click", (event) => this.#clicked(event));
    this.grid.addEventListener("dblclick", () => this.open());
    this.grid.addEventListener("keydown", (event) => this.#pressed(event));
    new ResizeObserver(() => this.soon()).observe(this.grid);
    this.refresh();
  }

  /** Show another state of the trace, in the same place. */
  grow(trace) {
    this.trace = trace;
    this.previews.grow(trace);
    this.refresh();
  }

  /** Compute the rows that are not folded away, and show them. */
  refresh() {
    const { rows } = this.trace;
    const [from, to] = state.to ? [Number(state.from), Number(state.to)] : [-Infinity, Infinity];
    this.#shown = [];
    for (let i = 0; i < rows.length; ) {
      const row = rows[i];
      const inside = row.start <= to && row.start + Math.max(0, row.took) >= from;
      // Rows outside of the visible time are hidden, with all below them.
      if (inside) this.#shown.push(row);
      i += inside && !this.folded.has(row.step) ? 1 : row.size;
    }
    this.pad.style.height = `${this.#shown.length * HEIGHT}px`;
    this.grid.setAttribute("aria-rowcount", this.#shown.length);
    const some = this.#shown.length < rows.length ? `${this.#shown.length.toLocaleString("en")} of ` : "";
    this.counted.textContent = `${some}${rows.length.toLocaleString("en")} ${rows.length === 1 ? "row" : "rows"}`;
    this.all.textContent = this.folded.size ? "unfold all (e)" : "fold all (e)";
    this.#draw();
  }

  /** Bring the chosen row into sight, and unfold its parents. */
  reveal() {
    const row = this.trace.at(Number(state.e));
    if (!row) return this.#draw();
    let unfolded = false;
    for (let above = row.parent; above; above = above.parent) unfolded = this.folded.delete(above.step) || unfolded;
    if (unfolded) this.refresh();
    const top = this.#shown.indexOf(row) * HEIGHT;
    const { scrollTop, clientHeight } = this.grid;
    if (top >= 0 && (top < scrollTop + HEIGHT || top > scrollTop + clientHeight - 2 * HEIGHT)) {
      this.grid.scrollTop = Math.max(0, top - clientHeight / 3);
    }
    this.#draw();
  }

  /** Fetch the row of a step that the server had left out, because it is deep in a huge trace. */
  async fetch(step) {
    if (this.trace.byStep.has(step)) return;
    let above = this.trace.at(step);
    while (above && !above.hidden) above = above.parent;
    if (!above) return;
    this.trace.insert(above, await source.children(above.step));
    this.refresh();
  }

  /** Fold everything, or unfold it if something is folded. */
  toggleAll() {
    if (this.folded.size) this.folded.clear();
    else for (const row of this.trace.rows) if (row.size > 1) this.folded.add(row.step);
    this.#keep();
    this.refresh();
    this.reveal();
  }

  async fold(row, folded) {
    if (row.hidden && !folded) this.trace.insert(row, await source.children(row.step));
    if (folded) this.folded.add(row.step);
    else this.folded.delete(row.step);
    this.#keep();
    this.refresh();
  }

  #keep() {
    try {
      sessionStorage.setItem(this.key, JSON.stringify([...this.folded].slice(0, 20000)));
    } catch {
      // then the folding is lost when the page is left
    }
  }

  /** Show the visible rows again after a change. */
  soon() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const first = Math.max(0, Math.floor(this.grid.scrollTop / HEIGHT) - SPARE);
    const count = Math.min(this.#shown.length - first, Math.ceil(this.grid.clientHeight / HEIGHT) + 2 * SPARE);
    while (this.#pool.length < count) this.#pool.push(new Line(this.grid, this.#pool.length));
    const chosen = this.trace.at(Number(state.e));
    let active = "";
    this.#pool.forEach((line, i) => {
      // A row keeps its element while it is visible: the place in the pool follows from its number.
      const number = first + ((((i - first) % this.#pool.length) + this.#pool.length) % this.#pool.length);
      const row = number < first + count ? this.#shown[number] : undefined;
      line.show(row, number, row && row === chosen, row && this.folded.has(row.step));
      if (row && row === chosen) active = line.element.id;
    });
    this.previews.want(this.#shown.slice(first, first + count));
    if (active) this.grid.setAttribute("aria-activedescendant", active);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  #clicked(event) {
    const line = event.target.closest(".row");
    const row = line && this.#shown[Number(line.dataset.number)];
    if (!row) return;
    if (event.target.closest(".twist") && (row.size > 1 || row.hidden)) this.fold(row, !row.hidden && !this.#isFolded(row));
    else {
      update({ e: row.step });
      this.picked();
    }
  }

  #isFolded(row) {
    return this.folded.has(row.step) || (row.hidden > 0 && row.size === 1);
  }

  #pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const chosen = this.trace.at(Number(state.e));
    const at = chosen ? this.#shown.indexOf(chosen) : -1;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / HEIGHT) - 1);
    const to = (number) => {
      const row = this.#shown[Math.min(Math.max(number, 0), this.#shown.length - 1)];
      if (row) update({ e: row.step });
    };
    const moves = {
      ArrowDown: () => to(at + 1),
      ArrowUp: () => to(at - 1),
      PageDown: () => to(at + page),
      PageUp: () => to(at - page),
      Home: () => to(0),
      End: () => to(this.#shown.length - 1),
      ArrowRight: () => {
        if (chosen && (chosen.hidden || this.#isFolded(chosen))) this.fold(chosen, false);
        else if (chosen && chosen.size > 1) to(at + 1);
      },
      ArrowLeft: () => {
        if (chosen && chosen.size > 1 && !this.#isFolded(chosen)) this.fold(chosen, true);
        else if (chosen?.parent) update({ e: chosen.parent.step });
      },
      Enter: () => this.open(),
    };
    const move = moves[event.key];
    if (move) move();
    else if (!this.#type(event, at)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Go to the next row whose name begins with the typed letters. Letters that are keys of the page stay keys. */
  #type(event, at) {
    const now = event.timeStamp;
    const going = this.#typed && now - this.#typedAt < 700;
    if (event.key.length !== 1 || (!going && "jknNtdecoyr?/".includes(event.key)) || event.key === " ") return false;
    this.#typed = (going ? this.#typed : "") + event.key.toLowerCase();
    this.#typedAt = now;
    const count = this.#shown.length;
    for (let i = this.#typed.length > 1 ? 0 : 1; i <= count; i++) {
      const row = this.#shown[(Math.max(at, 0) + i) % count];
      if (row?.name.toLowerCase().startsWith(this.#typed)) {
        update({ e: row.step });
        break;
      }
    }
    return true;
  }
}

/** One row of the grid, which shows one node after another. */
class Line {
  #row = null;
  #said = "";

  constructor(grid, number) {
    this.twist = make("span", { class: "twist", "aria-hidden": "true" });
    this.icon = make("i", { class: "icon", "aria-hidden": "true" });
    this.kind = make("span", { class: "unseen" });
    this.name = make("span", { class: "name" });
    this.said = make("span", { class: "said", dir: "auto" });
    const cell = { role: "gridcell" };
    this.what = make("span", { ...cell, class: "what" }, this.twist, this.icon, this.kind, this.name, this.said);
    this.tokens = make("span", { ...cell, class: "num" });
    this.cost = make("span", { ...cell, class: "num" });
    this.took = make("span", { ...cell, class: "num took" });
    this.element = make("div", { class: "row", role: "row", id: `r${number}` }, this.what, this.tokens, this.cost, this.took);
    grid.append(this.element);
  }

  show(row, number, chosen, folded) {
    const { element } = this;
    element.hidden = !row;
    if (!row) {
      this.#row = null;
      return;
    }
    element.style.transform = `translateY(${number * HEIGHT}px)`;
    element.dataset.number = number;
    element.setAttribute("aria-rowindex", number + 1);
    element.setAttribute("aria-selected", String(Boolean(chosen)));
    const said = `${folded} ${row.took} ${row.text}`; // the parts of a row that may change
    if (row === this.#row && said === this.#said) return;
    this.#row = row;
    this.#said = said;
    const closed = folded || (row.hidden > 0 && row.size === 1);
    const below = row.size > 1 || row.hidden > 0;
    element.className = `row ${row.state}`;
    element.setAttribute("aria-level", row.depth + 1);
    if (below) element.setAttribute("aria-expanded", String(!closed));
    else element.removeAttribute("aria-expanded");
    this.twist.textContent = below ? (closed || row.hidden ? "▸" : "▾") : "";
    this.what.style.paddingLeft = `${Math.min(row.depth, 12) * 12}px`;
    const open = row.state === "running" || row.state === "unfinished";
    this.icon.className = `icon ${row.state === "error" ? "failed" : open ? "open" : row.kind}`;
    this.kind.textContent = row.kind === "llm" || row.kind === "tool" || row.kind === "step" ? `${row.kind} ` : "";
    this.name.textContent = row.turn ? `Turn ${row.turn}` : row.name;
    this.said.textContent = [
      row.state === "ok" ? "" : row.state === "error" ? "failed" : WORDS[row.state],
      row.turn ? row.agent || row.model || row.name : "",
      row.text,
      closed ? `${(row.hidden + row.size - 1).toLocaleString("en")} below` : row.hidden ? `${row.hidden} more` : "",
    ].filter(Boolean).join(" · ");
    this.tokens.textContent = row.tokens ? tokens(row.tokens) : "";
    this.cost.textContent = row.cost ? dollars(row.cost) : "";
    this.took.textContent = duration(row.took);
    element.title = `${row.kind} ${row.name}, step ${row.step}`;
  }
}
