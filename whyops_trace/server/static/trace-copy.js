// The button that copies: one for all, at the card or the block of code under the pointer, else at the chosen card.

import { make } from "whyops/trace-data";
import { copied, result } from "whyops/trace-drawer";
import { source } from "whyops/trace-source";
import { state, watch } from "whyops/trace-state";

const PLACES = ".code, .card.turn, .card.tool";

/** The answer, result or error that a card is about, whole, as in its records. */
const said = async (card) => {
  const records = await source.records(card.dataset.step);
  const found = result(records) ?? records.find(({ eventType }) => eventType === "error")?.content ?? "";
  const text = (card.matches(".turn") && found.content) || found;
  return typeof text === "string" ? text : JSON.stringify(text, null, 2);
};

/** The button for the cards in *place*. */
export class Copier {
  constructor(place) {
    this.button = make("button", { type: "button", class: "copy", click: () => this.copy(this.button.closest(PLACES)) }, "copy");
    place.addEventListener("pointerover", ({ target }) => this.#moveTo(target.closest(PLACES)));
    watch((changed) => changed.has("e") && this.#moveTo(this.chosen));
  }

  /** The card of the chosen step. */
  get chosen() {
    return document.getElementById(`e${state.e}`);
  }

  #moveTo(place) {
    if (!place?.matches(PLACES) || this.button.closest(PLACES) === place) return;
    this.button.textContent = "copy";
    (place.querySelector(":scope > header") ?? place).append(this.button);
  }

  /** Copy the text of a block of code or a card. */
  async copy(place) {
    if (!place?.matches(PLACES)) return;
    const code = place.matches(".code") && place.querySelector("code").textContent;
    const done = await copied(code || (await said(place)), code ? "Code" : place.matches(".turn") ? "Answer" : "Result");
    this.#moveTo(place);
    this.button.textContent = done ? "copied" : "not copied";
  }
}
