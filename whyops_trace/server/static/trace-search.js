// Search in the trace: the server counts all occurrences, and those in the page are marked.

import { source } from "whyops/trace-source";
import { state, update, watch } from "whyops/trace-state";

const MARKS = 2000;

/** The search field in *form*, for texts in *places*. */
export class Search {
  #steps = [];
  #count = 0;
  #wanted = 0;
  #timer = 0;

  constructor(form, places) {
    this.form = form;
    this.field = form.elements.q;
    this.output = form.querySelector("output");
    this.places = places;
    form.hidden = false;
    this.field.value = state.q;
    form.addEventListener("submit", (event) => event.preventDefault());
    this.field.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => update({ q: this.field.value }), 120);
    });
    this.field.addEventListener("keydown", (event) => this.#pressed(event));
    watch((changed) => changed.has("q") && this.run());
    if (state.q) this.run();
  }

  focus() {
    this.field.focus();
    this.field.select();
  }

  #pressed(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      clearTimeout(this.#timer);
      update({ q: this.field.value });
      this.step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      this.field.value = "";
      update({ q: "" });
      this.field.blur();
    }
  }

  /** Search for the current text. */
  async run() {
    const wanted = ++this.#wanted;
    const words = state.q;
    if (!words) {
      this.#steps = [];
      this.#count = 0;
      this.output.textContent = "";
      this.mark();
      return;
    }
    this.pending = source.find(words).then(({ steps, count }) => {
      if (wanted !== this.#wanted) return;
      this.#steps = [...new Set(steps)];
      this.#count = count;
      this.#tell();
      this.mark();
    }).catch(() => {
      this.output.textContent = "the search failed";
    });
    await this.pending;
  }

  #tell() {
    const at = this.#steps.indexOf(Number(state.e));
    const place = at < 0 ? "" : `, step ${at + 1} of ${this.#steps.length}`;
    this.output.textContent = this.#count ? `${this.#count.toLocaleString("en")} found${place}` : "not found";
  }

  /** Go to the next step with the text, or to the one before. */
  async step(by) {
    await this.pending;
    if (!this.#steps.length) return;
    const at = this.#steps.indexOf(Number(state.e));
    const next = at < 0 ? (by > 0 ? 0 : this.#steps.length - 1) : (at + by + this.#steps.length) % this.#steps.length;
    update({ e: this.#steps[next] });
    this.#tell();
  }

  /** Mark the occurrences in the page, and unfold those at the chosen step. */
  mark() {
    if (!globalThis.CSS?.highlights) return;
    CSS.highlights.delete("found");
    const sought = state.q.toLowerCase();
    if (!sought) return;
    const ranges = [];
    for (const place of this.places) {
      const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
      while (texts.nextNode() && ranges.length < MARKS) {
        const said = texts.currentNode.data.toLowerCase();
        for (let at = said.indexOf(sought); at >= 0 && ranges.length < MARKS; at = said.indexOf(sought, at + sought.length)) {
          if (at + sought.length > texts.currentNode.length) break; // lower case may be longer
          const range = new Range();
          range.setStart(texts.currentNode, at);
          range.setEnd(texts.currentNode, at + sought.length);
          ranges.push(range);
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
    const chosen = document.getElementById(`e${state.e}`);
    for (const range of ranges) {
      if (!chosen?.contains(range.startContainer)) continue;
      for (let fold = range.startContainer.parentElement.closest("details:not([open])"); fold; fold = fold.parentElement.closest("details:not([open])")) {
        if (fold.querySelector("summary")?.contains(range.startContainer)) break;
        fold.open = true;
      }
    }
  }
}
