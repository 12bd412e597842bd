// Previews of calls in the rows of a long trace. Its skeleton has no room for them, so visible rows fetch theirs.

import { source } from "whyops/trace-source";

const STEPS = 400; // largest number of steps in a request
const PAUSE = 60; // ms that rows are visible before a request, so that scrolling past them costs none

/** The previews of the rows of *trace*; *came* is called when more of them have come. */
export class Previews {
  #asked = new Set();
  #timer = 0;

  constructor(trace, came) {
    this.trace = trace;
    this.came = came;
  }

  /** Set another state of the trace. Known previews are kept until new ones come. */
  grow(trace) {
    for (const row of trace.previewed ? [] : trace.rows) row.text ||= this.trace.byStep.get(row.step)?.text ?? "";
    this.trace = trace;
    this.#asked.clear();
  }

  /** Fetch the previews of some rows, soon. */
  want(rows) {
    if (this.trace.previewed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      for (const part of new Set(rows.map(({ step }) => Math.floor(step / STEPS)))) if (!this.#asked.has(part)) this.#ask(part);
    }, PAUSE);
  }

  async #ask(part) {
    this.#asked.add(part);
    try {
      const texts = await source.previews(part * STEPS, (part + 1) * STEPS);
      for (const [step, text] of Object.entries(texts)) {
        const row = this.trace.byStep.get(Number(step));
        if (row) row.text = text;
      }
      this.came();
    } catch {
      // then the rows show only their names
    }
  }
}
