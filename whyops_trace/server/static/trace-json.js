// JSON as foldable text, made of text nodes only, so that nothing in a record can become markup.

import { make, visible } from "whyops/trace-data";

const OPEN = 3; // levels unfolded at first
const MANY = 60; // members shown at once
const LONG = 1500; // characters of a text shown at once

/** The elements of one JSON value. */
export const printed = (value, depth = 0) => {
  if (typeof value === "string") return text(value);
  if (JSON.isRawJSON?.(value)) return make("span", { class: "atom" }, value.rawJSON);
  if (value === null || typeof value !== "object") return make("span", { class: "atom" }, String(value));
  const members = Array.isArray(value) ? value.map((one, i) => [i, one]) : Object.entries(value);
  const [begin, end] = Array.isArray(value) ? "[]" : "{}";
  if (!members.length) return make("span", {}, begin + end);
  return folding(members, begin, end, depth, !Array.isArray(value));
};

const folding = (members, begin, end, depth, named) => {
  const count = `${members.length} ${named ? (members.length === 1 ? "member" : "members") : members.length === 1 ? "item" : "items"}`;
  const inside = make("div", { class: "in" });
  const rest = make("span");
  let filled = 0;
  const fill = () => {
    const some = members.slice(filled, filled + MANY);
    filled += some.length;
    for (const [name, one] of some) {
      const key = named ? [make("span", { class: "key" }, `${name}: `)] : [];
      inside.append(make("div", {}, ...key, printed(one, depth + 1)));
    }
    if (filled < members.length) {
      const more = make("button", { type: "button", click: () => (more.remove(), fill()) }, `${members.length - filled} more`);
      inside.append(more);
    }
  };
  const toggle = make("button", { type: "button", "aria-label": count });
  const show = (open) => {
    if (open && !filled) fill();
    inside.hidden = !open;
    rest.textContent = open ? "" : ` ${count} ${end}`;
    toggle.textContent = open ? "▾" : "▸";
    toggle.setAttribute("aria-expanded", String(open));
  };
  toggle.addEventListener("click", () => show(inside.hidden));
  show(depth < OPEN && (depth === 0 || members.length <= MANY));
  return make("span", {}, toggle, begin, rest, inside, end);
};

const text = (said) => {
  const whole = visible(said);
  if (whole.length <= LONG) return make("span", { class: "string", dir: "auto" }, whole);
  const shown = make("span", { class: "string", dir: "auto" }, whole.slice(0, LONG));
  // Layout of a text of megabytes is slow, so each click shows ten times more of it.
  let length = LONG;
  const more = make("button", { type: "button" });
  const label = () => (more.textContent = `… ${(whole.length - length).toLocaleString("en")} more characters`);
  more.addEventListener("click", () => {
    length = Math.min(whole.length, length * 10);
    shown.textContent = whole.slice(0, length);
    if (length >= whole.length) more.remove();
    else label();
  });
  label();
  return make("span", {}, shown, more);
};
