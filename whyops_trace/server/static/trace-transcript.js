// The transcript: its cards come from the server. Here they are fetched when they come near, found and chosen.

import { make } from "whyops/trace-data";
import { given } from "whyops/trace-drawer";
import { printed } from "whyops/trace-json";
import { layOut } from "whyops/trace-layout";
import { source } from "whyops/trace-source";
import { state, update } from "whyops/trace-state";

const NEAR = "900px";
const KEPT = 2; // most chunks that stay although they are far away
const SECTIONS = 8; // sections in a chunk of new ones of a growing trace

/** The transcript of *trace* in *place*; *seen* is called with the numbers of the visible sections. */
export class Transcript {
  #loading = new Map();
  #loaded = [];
  #inSight = new Set();
  #chosen = null;
  #clicked = false;

  constructor(place, trace, seen) {
    this.place = place;
    this.trace = trace;
    this.seen = seen;
    this.changed = () => {}; // called after new cards have come
    this.sections = new IntersectionObserver((entries) => this.#noticed(entries), { rootMargin: "-96px 0px 0px 0px" });
    this.near = new IntersectionObserver((entries) => this.#approached(entries), { rootMargin: `${NEAR} 0px` });
    for (const chunk of place.querySelectorAll(".chunk")) this.#adopt(chunk);
    layOut(place);
    place.addEventListener("click", (event) => this.#click(event));
    place.addEventListener("toggle", (event) => this.#toggled(event), true);
  }

  #adopt(chunk) {
    if ("empty" in chunk.dataset) chunk.style.height = `${chunk.dataset.height}px`;
    for (const section of chunk.children) this.sections.observe(section);
    this.near.observe(chunk);
  }

  #approached(entries) {
    for (const { isIntersecting, target } of entries) if (isIntersecting) this.load(target);
    if (entries.some((entry) => !entry.isIntersecting)) this.#release();
  }

  #noticed(entries) {
    for (const { isIntersecting, target } of entries) {
      const number = Number(target.dataset.section);
      if (isIntersecting) this.#inSight.add(number);
      else this.#inSight.delete(number);
    }
    if (this.#inSight.size) this.seen([...this.#inSight]);
  }

  /** The numbers of the visible sections. */
  get inSight() {
    return [...this.#inSight].sort((one, other) => one - other);
  }

  /** Fetch the sections of a chunk, unless they are there. */
  load(chunk) {
    if (!("empty" in chunk.dataset)) return undefined;
    const going = this.#loading.get(chunk);
    if (going) return going;
    const { first, end } = chunk.dataset;
    const coming = source.sections(Number(first), Number(end)).then((markup) => {
      this.#fill(chunk, markup);
    }).catch((problem) => {
      chunk.replaceChildren(make("p", { class: "dim" }, `This part did not come (${problem.message}).`));
    }).finally(() => this.#loading.delete(chunk));
    this.#loading.set(chunk, coming);
    return coming;
  }

  #fill(chunk, markup) {
    const template = document.createElement("template");
    template.innerHTML = markup; // made by this page's server, which escapes everything in a record
    layOut(template.content);
    staying(() => {
      chunk.replaceChildren(template.content);
      delete chunk.dataset.empty;
      chunk.style.height = "";
    });
    for (const section of chunk.children) this.sections.observe(section);
    this.#loaded.push(chunk);
    this.#mark();
    this.#release();
    this.changed();
  }

  /** Empty the chunks that are far away, so that the page stays small. */
  #release() {
    if (this.#loaded.length <= KEPT) return;
    const distance = (chunk) => {
      const { top, bottom } = chunk.getBoundingClientRect();
      return Math.max(0, top - innerHeight, -bottom);
    };
    const far = this.#loaded.map((chunk) => [distance(chunk), chunk]).sort((one, other) => one[0] - other[0]).slice(KEPT);
    for (const [pixels, chunk] of far) {
      if (pixels < 1400 || chunk.contains(document.activeElement)) continue;
      chunk.style.height = `${chunk.getBoundingClientRect().height}px`;
      chunk.replaceChildren();
      chunk.dataset.empty = "";
      this.#loaded.splice(this.#loaded.indexOf(chunk), 1);
    }
  }

  /** The element that shows a row, once its chunk is there. */
  async element(row) {
    const chunk = [...this.place.children].find(({ dataset }) => row.section >= dataset.first && row.section < dataset.end);
    if (chunk) await this.load(chunk);
    return document.getElementById(`e${row.step}`) ?? document.getElementById(`s${row.section}`);
  }

  /** Bring the chosen row into sight, and mark it. */
  async reveal(focus = false) {
    const clicked = this.#clicked;
    this.#clicked = false;
    const row = this.trace.at(Number(state.e));
    const element = row && (await this.element(row));
    if (row !== this.trace.at(Number(state.e))) return;
    this.#mark();
    if (!element || this.place.hidden) return;
    const { top, bottom } = element.getBoundingClientRect();
    const margin = parseFloat(getComputedStyle(element).scrollMarginTop) || 0;
    if (!clicked && (top < margin || Math.min(bottom, top + 160) > innerHeight)) element.scrollIntoView({ block: "start" });
    if (focus) {
      element.tabIndex = -1;
      element.focus({ preventScroll: true });
    }
  }

  #mark() {
    const row = this.trace.at(Number(state.e));
    const element = row && document.getElementById(`e${row.step}`);
    if (this.#chosen && this.#chosen !== element) this.#chosen.classList.remove("chosen");
    element?.classList.add("chosen");
    this.#chosen = element;
  }

  #click(event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
    const opener = event.target.closest("[data-open]");
    if (opener) {
      event.preventDefault();
      this.#clicked = true;
      update({ e: opener.dataset.open, detail: "1" });
      return;
    }
    if (event.target.closest("a, button, summary, form") || String(getSelection())) return;
    const card = event.target.closest("[data-step]");
    if (!card) return;
    this.#clicked = true;
    update({ e: card.dataset.step });
  }

  async #toggled(event) {
    const fold = event.target;
    const { earlier, of } = fold.dataset ?? {};
    if (!earlier || !fold.open || "filled" in fold.dataset) return;
    fold.dataset.filled = "";
    const messages = given(await source.records(of));
    if (!Array.isArray(messages)) return;
    fold.append(...messages.slice(0, Number(earlier)).map(message));
    layOut(fold);
    this.changed();
  }

  /** Show another state of the trace: changed sections are fetched anew, and new ones are added at the end. */
  async grow(trace, stamps, before) {
    this.trace = trace;
    const changed = stamps.map((_, number) => number).filter((number) => number < before.length && stamps[number] !== before[number]);
    for (const number of changed) await this.renew(number);
    this.place.querySelector(".nothing")?.remove();
    for (let first = before.length; first < stamps.length; first += SECTIONS) {
      const end = Math.min(first + SECTIONS, stamps.length);
      const chunk = make("div", { class: "chunk", "data-first": first, "data-end": end, "data-height": 300 * (end - first), "data-empty": true });
      this.place.append(chunk);
      this.#adopt(chunk);
    }
    this.#mark();
  }

  /** Fetch a section again, if it is in the page. */
  async renew(number) {
    const section = document.getElementById(`s${number}`);
    if (!section || section.querySelector(".annotate[open]")) return;
    const markup = await source.sections(number, number + 1);
    const template = document.createElement("template");
    template.innerHTML = markup;
    const fresh = template.content.firstElementChild;
    if (!fresh) return;
    layOut(fresh);
    const unfolded = [...section.querySelectorAll("details")].map((fold) => fold.open);
    fresh.querySelectorAll("details").forEach((fold, i) => (fold.open = unfolded[i] ?? fold.open));
    const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
    this.sections.unobserve(section);
    staying(() => section.replaceWith(fresh));
    this.sections.observe(fresh);
    this.#mark();
    if (focused) {
      const again = document.getElementById(focused);
      if (again) again.tabIndex = -1;
      again?.focus({ preventScroll: true });
    }
    this.changed();
  }
}

/** Call *change*, and keep the text being read in place: the chosen card, else the first visible one. */
export const staying = (change) => {
  const shown = (card) => {
    const { top, bottom } = card.getBoundingClientRect();
    return bottom > 100 && top < innerHeight;
  };
  const chosen = document.querySelector(".chosen");
  // At its very top the page shows its head, which may become longer.
  const card = chosen && shown(chosen) ? chosen : scrollY > 0 ? [...document.querySelectorAll(".card")].find(shown) : null;
  const before = card?.getBoundingClientRect().top;
  const root = document.documentElement;
  root.style.overflowAnchor = "none"; // the browser's own adjustment would be added
  change();
  const moved = card?.isConnected ? card.getBoundingClientRect().top - before : 0;
  if (moved) scrollBy({ top: moved, behavior: "instant" });
  root.style.overflowAnchor = "";
};

/** A message in the form sent to a provider. */
const message = (one) => {
  const role = typeof one?.role === "string" ? one.role : typeof one?.type === "string" ? one.type : "message";
  const content = one?.content ?? one;
  const plain = typeof content === "string" && !one.tool_calls;
  const shown = plain ? make("div", { class: "text md", dir: "auto" }, content) : make("div", { class: "json" }, printed(one));
  return make("div", { class: "message" }, make("span", { class: "role" }, role), make("div", { class: "body" }, shown));
};
