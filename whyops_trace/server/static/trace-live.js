// A running trace: the page grows at its end, and the text being read stays in place.

import { follow, isSupported } from "whyops/live";
import { Trace, make } from "whyops/trace-data";
import { source } from "whyops/trace-source";
import { say } from "whyops/trace-state";

const PAUSE = 250; // fewest ms between two requests
const SHARE = 4; // pause as a multiple of a request's time: the server takes a while to read a long trace

/** Keep the page up to date: *show* is called with the new state of the trace, its skeleton, and its head. */
export const keepUp = (root, trace, show) => {
  if (source.offline || !isSupported) return;
  const told = document.getElementById("live");
  let [version, going, again] = [trace.version, false, false];
  const look = async () => {
    if (going) {
      again = true;
      return;
    }
    going = true;
    const began = performance.now();
    try {
      const skeleton = await source.skeleton();
      if (skeleton.version !== version) {
        version = skeleton.version;
        await show(new Trace(skeleton), skeleton, await source.head());
      }
      tell(skeleton.running);
    } catch (problem) {
      if (problem.message.startsWith("404")) tell(false, "deleted");
    }
    setTimeout(() => {
      going = false;
      if (again) {
        again = false;
        look();
      }
    }, Math.max(PAUSE, SHARE * (performance.now() - began)));
  };
  const tell = (running, other = "") => {
    const text = other || (running ? "running" : "");
    if (told.textContent !== text) told.textContent = text;
  };
  tell("running" in root.dataset);
  follow(() => "/live", { changed: look }, (how) => {
    if (how === "lost") tell(false, "no connection");
    else look();
  });
};

/** The button with the number of new rows below the visible ones. */
export class Below {
  #first = null;
  #count = 0;

  constructor(button) {
    this.button = button;
    button.addEventListener("click", () => {
      document.querySelector(`[data-first="${this.#first}"]`)?.scrollIntoView({ block: "start" });
      this.clear();
    });
  }

  /** Count new rows, from a section on. */
  add(count, section) {
    this.#first ??= section;
    this.#count += count;
    const text = `${this.#count.toLocaleString("en")} new below`;
    this.button.replaceChildren(make("span", {}, `${text} ↓`));
    this.button.hidden = false;
    say(text);
  }

  /** Reset the count, since the rows are visible now. */
  clear(last = Infinity) {
    if (this.#first === null || last < this.#first) return;
    this.#first = null;
    this.#count = 0;
    this.button.hidden = true;
  }
}
