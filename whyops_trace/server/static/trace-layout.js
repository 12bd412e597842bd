// Texts of models laid out as Markdown, or raw: the choice is remembered.

import { forget } from "whyops/trace-code";
import { rendered, unclosed } from "whyops/trace-markdown";

const KEY = "whyops-raw";
const MARKED = /[*_`~#>|[\]]|^\s*([-+]|\d+[.)])\s|^\s*(---|===)|https?:/m; // what Markdown begins with

let raw = false;
try {
  raw = localStorage.getItem(KEY) === "1";
} catch {
  // a page opened from a file may have no storage
}
const texts = new WeakMap(); // the texts of elements that are laid out

/** Lay out the texts in *place*, or show them raw. */
export const layOut = (place) => {
  forget();
  for (const element of place.querySelectorAll(".md")) {
    const text = texts.get(element) ?? element.textContent;
    if (!MARKED.test(text)) continue;
    texts.set(element, text);
    element.classList.toggle("laid", !raw);
    // The unfolded part of a text may begin within a block of code.
    const before = element.parentElement.matches(".rest") ? unclosed(texts.get(element.parentElement.previousElementSibling) ?? "") : "";
    element.replaceChildren(raw ? text : rendered(before ? `${before}\n${text}` : text));
  }
};

/** True if texts are shown raw. */
export const isRaw = () => raw;

/** Show texts raw if they are laid out, and laid out if they are raw. */
export const toggleRaw = () => {
  raw = !raw;
  try {
    localStorage.setItem(KEY, raw ? "1" : "");
  } catch {
    // then the choice lasts until the page is left
  }
};
