// Markdown as elements, made of text nodes only: nothing in a text becomes markup, nothing is fetched, and no text is slow.

import { colour } from "whyops/trace-code";
import { make, visible } from "whyops/trace-data";

const DEEPEST = 8; // levels of lists and quotes, and of emphasis
const CELLS = 60; // most columns of a table

const FENCE = /^ {0,3}(?=(`{3,}|~{3,}))\1(?!.*`)[ \t]*([\w+#.-]*)/;
const TITLE = /^ {0,3}(#{1,6})[ \t]+/;
const RULE = /^ {0,3}([-*_])([ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const DASHES = /^[ |:]*-[ |:-]*$/;

/** The number of the first line from *i* on that does not hold. */
const after = (lines, i, holds) => {
  while (i < lines.length && holds(lines[i], i)) i++;
  return i;
};
const isBlank = (line) => !line?.trim();
const indentOf = (line) => line.search(/\S|$/);
const closes = (line, fence) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "");
const isTable = (lines, i) => lines[i].includes("|") && lines[i + 1]?.includes("|") && DASHES.test(lines[i + 1]);
/** True if a line ends the paragraph before it. */
const begins = (lines, i) => [FENCE, TITLE, RULE, QUOTE, ITEM].some((mark) => mark.test(lines[i])) || isTable(lines, i);

const fenced = (lines, i, [, fence, language]) => {
  const end = after(lines, i + 1, (line) => !closes(line, fence));
  const text = make("code", {}, lines.slice(i + 1, end).join("\n"));
  colour(text, language.toLowerCase());
  return [make("div", { class: "code" }, make("pre", {}, text)), end + 1];
};
const title = (lines, i, [mark, { length }]) => [make("p", { class: `title t${length}` }, inline(lines[i].slice(mark.length).replace(/[ \t]#+[ \t]*$/, ""))), i + 1];
const quote = (lines, i, _, depth) => {
  const end = after(lines, i, (line) => QUOTE.test(line));
  return [make("blockquote", {}, blocks(lines.slice(i, end).map((line) => line.replace(QUOTE, "")), depth)), end];
};
const list = (lines, i, [, { length: indent }, mark], depth) => {
  const number = parseInt(mark);
  const made = make(number >= 0 ? "ol" : "ul", number >= 0 ? { start: number } : {});
  const inside = (line) => !isBlank(line) && indentOf(line) > indent;
  for (let item; (item = ITEM.exec(lines[i] ?? "")) && item[1].length === indent && item[2].at(-1) === mark.at(-1); ) {
    const goesOn = (line, j) => (isBlank(line) ? inside(lines[j + 1]) : inside(line) || !(isBlank(lines[j - 1]) || begins(lines, j)));
    const end = after(lines, i + 1, goesOn);
    const { length } = item[0];
    const content = blocks(lines.slice(i, end).map((line, j) => line.slice(j ? Math.min(indentOf(line), length) : length)), depth);
    // A paragraph that stands first is the item itself.
    if (content.firstChild?.matches("p:not([class])")) content.firstChild.replaceWith(...content.firstChild.childNodes);
    made.append(make("li", {}, content));
    i = after(lines, end, (line, j) => isBlank(line) && ITEM.test(lines[j + 1] ?? ""));
  }
  return [made, i];
};
const table = (lines, i) => {
  const end = after(lines, i + 2, (line) => line.includes("|"));
  const head = cells(lines[i]);
  const row = (texts, tag, about) => make("tr", {}, ...head.map((_, j) => make(tag, about, inline(texts[j] ?? ""))));
  return [make("table", { tabindex: 0 }, row(head, "th", { scope: "col" }), ...lines.slice(i + 2, end).map((line) => row(cells(line), "td", {}))), end];
};
const cells = (line) => {
  const found = [""];
  for (const part of line.trim().replace(/^\||\|$/g, "").match(/\\?\||[^|\\]+|\\/g) ?? []) {
    if (part !== "|") found[found.length - 1] += part === "\\|" ? "|" : part;
    else if (found.push("") > CELLS) break;
  }
  return found.map((cell) => cell.trim());
};

const READERS = [[FENCE, fenced], [TITLE, title], [RULE, (_, i) => [make("hr"), i + 1]], [QUOTE, quote], [ITEM, list]];

/** The elements of lines, in a fragment. */
const blocks = (lines, depth = 0) => {
  const found = document.createDocumentFragment();
  for (let i = 0; (i = after(lines, i, isBlank)) < lines.length; ) {
    const [mark, read] = (depth < DEEPEST && READERS.find(([one]) => one.test(lines[i]))) || [];
    let made;
    if (mark) [made, i] = read(lines, i, mark.exec(lines[i]), depth + 1);
    else if (isTable(lines, i)) [made, i] = table(lines, i);
    else {
      const end = after(lines, i + 1, (line, j) => !isBlank(line) && (depth >= DEEPEST || !begins(lines, j)));
      [made, i] = [make("p", {}, inline(lines.slice(i, end).join("\n"))), end];
    }
    found.append(made);
  }
  return found;
};

/** The elements of a text, in a fragment. */
export const rendered = (text) => blocks(text.split("\n"));

/** The line that opened a block of code that has no end in a text, "" if there is none. */
export const unclosed = (text) => {
  let [open, fence] = ["", ""];
  for (const line of text.split("\n")) {
    if (!open) [open, fence] = FENCE.exec(line) ?? ["", ""];
    else if (closes(line, fence)) open = "";
  }
  return open;
};

// A backslash, backticks, emphasis, the beginning and the end of a link, an address.
const MARKS =
  /\\([!-/:-@[-`{-~])|(`+)|(\*{1,3}|_{1,3}|~~)|(!?\[)|\](?:\(<?((?:[^\s()<>]|\([^\s()<>]{0,500}\)){1,2000})>?(?: "[^"]{0,500}")?\))?|(https?:\/\/[^\s<>"'`|\\*[\]]{0,2000}[^\s<>"'`|\\*[\].,;:!?)])/g;
const TAGS = { 1: ["em"], 2: ["strong"], 3: ["strong", "em"] };
const END = {};

/** The nodes of a text without blocks, in a fragment. */
const inline = (text) => {
  const tokens = []; // texts, nodes, beginnings of elements, and END
  const open = []; // beginnings without an end
  const counts = { "[": 0 }; // how many of them there are, by their mark
  const ticks = {}; // places of runs of backticks by their length, the first one last
  for (const { 0: run, index } of [...text.matchAll(/`+/g)].reverse()) (ticks[run.length] ??= []).push(index);
  const begin = (mark) => {
    const token = { mark };
    counts[mark] = (counts[mark] ?? 0) + 1;
    open.push(token);
    return tokens.push(token);
  };
  /** End what began last with a mark, as *made* makes it; what began in it is text. */
  const end = (mark, made) => {
    if (!counts[mark]) return false;
    let token;
    do counts[(token = open.pop()).mark] -= 1;
    while (token.mark !== mark);
    token.made = made;
    return tokens.push(END);
  };
  const ends = (run) => {
    const tags = run[0] === "~" ? ["del"] : TAGS[run.length];
    if (end(run, (here) => tags.reduce((outer, tag) => outer.appendChild(make(tag)), here))) return true;
    if (run.length < 3) return false;
    const inner = open.at(-1)?.mark === run[0] ? 1 : 2;
    return ends(run.slice(0, inner)) && (ends(run.slice(inner)) || tokens.push(run.slice(inner)));
  };
  let last = 0;
  MARKS.lastIndex = 0;
  for (let match; (match = MARKS.exec(text)); ) {
    const [all, escaped, run, emphasis, bracket, target, address] = match;
    tokens.push(text.slice(last, match.index));
    last = MARKS.lastIndex;
    if (run) {
      const places = ticks[run.length];
      while (places.at(-1) <= match.index) places.pop();
      if (places.length) {
        const inside = text.slice(last, places.at(-1));
        tokens.push(make("code", {}, /^ .*\S.* $/s.test(inside) ? inside.slice(1, -1) : inside));
        last = MARKS.lastIndex = places.at(-1) + run.length;
        continue;
      }
    }
    const [before, next] = [text[match.index - 1] ?? " ", text[last] ?? " "];
    const done = emphasis
      ? !(emphasis[0] === "_" && /\w/.test(before) && /\w/.test(next)) && ((/\S/.test(before) && ends(emphasis)) || (/\S/.test(next) && begin(emphasis)))
      : bracket ? begin("[") : target ? end("[", (here) => here.appendChild(link(target, { "data-to": visible(target) })))
      : address && !counts["["] && tokens.push(link(address, {}, address));
    if (!done) tokens.push(escaped ?? all);
  }
  tokens.push(text.slice(last));
  return nested(tokens);
};

/** The nodes of tokens, each inside of what began before it and has not ended yet, in a fragment. */
const nested = (tokens) => {
  const within = [document.createDocumentFragment()];
  for (const token of tokens) {
    const here = within.at(-1);
    if (token === END) within.pop();
    else if (token.made) within.push(within.length > DEEPEST ? here : token.made(here));
    else here.append(token.mark ?? (typeof token === "string" ? visible(token) : token));
  }
  within[0].normalize();
  return within[0];
};

/** An address of the web, for a click only; any other as text. The style sheet shows where it leads. */
const link = (to, about, ...text) =>
  /^https?:\/\//i.test(to) ? make("a", { ...about, href: to, rel: "noreferrer noopener", target: "_blank" }, ...text) : make("span", about, ...text);
