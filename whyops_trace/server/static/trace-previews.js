// What calls were given, in the rows of a long trace: its skeleton has no room for that, so it comes for those in sight.

import { source } from "whyops/trace-source";

const STEPS = 400; // that are asked for at once
const PAUSE = 60; // ms that rows are in sight first: what is only passed is not asked for

/** The previews of the rows of *trace*; *came* is called when there are more of them. */
export class Previews {
  #asked = new Set();
  #timer = 0;

  constructor(trace, came) {
    this.trace = trace;
    this.came = came;
  }

  /** Take another state of the trace: what is known is kept until it comes again. */
  grow(trace) {
    for (const row of trace.previewed ? [] : trace.rows) row.text ||= this.trace.byStep.get(row.step)?.text ?? "";
    this.trace = trace;
    this.#asked.clear();
  }

  /** Have those of some rows, soon. */
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
      // then the rows have their names only
    }
  }
}
