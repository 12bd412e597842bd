// The page of one trace: puts its parts together and binds the keys.

import { bind } from "whyops/keys";
import { Copier } from "whyops/trace-copy";
import { Trace, duration } from "whyops/trace-data";
import { compare } from "whyops/trace-diff";
import { Drawer } from "whyops/trace-drawer";
import { isRaw, layOut, toggleRaw } from "whyops/trace-layout";
import { Below, keepUp } from "whyops/trace-live";
import { Overview } from "whyops/trace-map";
import { Outline } from "whyops/trace-outline";
import { Search } from "whyops/trace-search";
import { source } from "whyops/trace-source";
import { address, say, state, update, watch } from "whyops/trace-state";
import { Timeline } from "whyops/trace-timeline";
import { Transcript, staying } from "whyops/trace-transcript";

const by = (id) => document.getElementById(id);
const root = by("trace");
const columns = by("columns");
const small = matchMedia("(max-width: 720px)");

const skeleton = by("skeleton") ? JSON.parse(by("skeleton").textContent) : await source.skeleton();
let trace = until(new Trace(skeleton));
let stamps = skeleton.stamps;
let times = sections(trace);
let focus = false;
let left = null; // the element with the focus before the detail was opened

/** The trace with the current length of its open calls. In a file they keep their length. */
function until(grown) {
  if (!source.offline) grown.tick(Date.now());
  return grown;
}

/** The beginning and the end of each section, in time. */
function sections({ rows }) {
  const found = [];
  for (const { section, start, took, kind } of rows) {
    if (kind === "step") continue;
    const end = start + Math.max(0, took);
    const known = found[section];
    found[section] = known ? [Math.min(known[0], start), Math.max(known[1], end)] : [start, end];
  }
  return found;
}

const open = () => update({ e: state.e || (trace.rows[0]?.step ?? ""), detail: state.detail ? "" : "1" });
const choose = (row, said) => {
  if (!row) return say("There is no other.");
  focus = state.view !== "timeline";
  update({ e: row.step });
  if (said) say(said);
};

const below = new Below(by("below"));
const outline = new Outline(by("outline"), trace, open, () => small.matches && showOutline(false));
const overview = new Overview(by("map"), trace, (row) => choose(row));
const timeline = new Timeline(by("timeline"), trace, open);
const drawer = new Drawer(by("drawer"), columns, trace);
const transcript = new Transcript(by("transcript"), trace, (seen) => {
  const shown = seen.map((number) => times[number]).filter(Boolean);
  if (shown.length) overview.see(Math.min(...shown.map(([from]) => from)), Math.max(...shown.map(([, to]) => to)));
  below.clear(Math.max(...seen));
});
const search = new Search(by("find"), [by("transcript"), by("drawer")]);
const copier = new Copier(by("transcript"));
transcript.changed = () => state.q && search.mark();

const showOutline = (shown) => {
  by("outline").hidden = !shown;
  columns.classList.toggle("outlined", shown);
  by("outline-open").setAttribute("aria-pressed", String(shown));
};
const showRaw = () => by("raw").setAttribute("aria-pressed", String(isRaw()));
const switchRaw = () => {
  toggleRaw();
  showRaw();
  staying(() => layOut(by("transcript")));
  if (state.q) search.mark();
};
const showView = () => {
  const isTimeline = state.view === "timeline";
  by("timeline").hidden = !isTimeline;
  by("transcript").hidden = isTimeline;
  for (const button of by("views").querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String((button.dataset.view === "timeline") === isTimeline));
  }
  if (isTimeline) timeline.soon();
};

watch(async (changed) => {
  if (changed.has("e") && !trace.byStep.has(Number(state.e))) await outline.fetch(Number(state.e));
  if (changed.has("view")) showView();
  if (changed.has("from") || changed.has("to")) outline.refresh();
  if (changed.has("e") || changed.has("detail")) drawer.show();
  if (!changed.has("e") && !changed.has("view")) return;
  outline.reveal();
  const focused = focus;
  focus = false;
  if (state.view === "timeline") timeline.tell();
  await transcript.reveal(focused);
  if (state.q) search.mark();
});

/** The row among *rows* that comes after the chosen one, or before it. */
const beside = (rows, way) => {
  const chosen = trace.at(Number(state.e));
  const [first] = transcript.inSight;
  // Without a chosen row it starts from the visible section.
  const from = chosen?.step ?? (scrollY > 200 ? (trace.rows.find(({ section }) => section === first)?.step ?? 0) : 0);
  return way > 0 ? rows.find(({ step }) => step > from) : rows.findLast(({ step }) => step < from);
};
const turn = (way) => choose(beside(trace.turns, way));
const failure = (way) => {
  const row = beside(trace.failures, way) ?? (way > 0 ? trace.failures[0] : trace.failures.at(-1));
  if (!row) return say("Nothing failed.");
  choose(row, `Failure ${trace.failures.indexOf(row) + 1} of ${trace.failures.length}: ${row.name} ${row.text}`);
};
const link = async () => {
  const where = source.offline ? `${location.href.split("?")[0]}${location.search}` : location.origin + address();
  try {
    await navigator.clipboard.writeText(where);
    say("Link copied");
  } catch {
    say("The browser does not let this page copy; the address bar has the link.");
  }
};
/** Open the detail and move the focus into it, to its links and buttons. Closing it moves the focus back. */
const enter = () => {
  const [before, aside] = [document.activeElement, by("drawer")];
  open();
  if (state.detail) {
    left = before;
    aside.tabIndex = -1;
    aside.focus({ preventScroll: true });
  } else leave();
};
const leave = () => {
  if (left?.isConnected) left.focus({ preventScroll: true });
  left = null;
};
const back = () => {
  if (state.detail) {
    update({ detail: "" });
    leave();
  } else if (state.to) update({ from: "", to: "" });
  else if (state.q) update({ q: (search.field.value = "") });
  else if (small.matches && !by("outline").hidden) showOutline(false);
  else update({ e: "" });
};
const inOutline = (key) => () => {
  if (by("outline").hidden) return false;
  outline.grid.focus();
  outline.grid.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
};

bind({
  j: () => turn(1),
  k: () => turn(-1),
  n: () => failure(1),
  N: () => failure(-1),
  t: () => update({ view: state.view === "timeline" ? "" : "timeline" }),
  d: () => void compare(trace).then((shown) => shown || say("There is no other turn to compare with.")),
  e: () => outline.toggleAll(),
  o: () => showOutline(by("outline").hidden),
  c: () => void link(),
  r: switchRaw,
  y: () => void copier.copy(copier.chosen),
  "/": () => search.focus(),
  Enter: (event) => (event.target.closest("a, button, summary") ? false : enter()),
  Escape: back,
  // The arrows scroll the page. Bars that cannot be scrolled are walked through.
  ArrowDown: () => state.view === "timeline" && inOutline("ArrowDown")(),
  ArrowUp: () => state.view === "timeline" && inOutline("ArrowUp")(),
  ArrowLeft: inOutline("ArrowLeft"),
  ArrowRight: inOutline("ArrowRight"),
});

document.addEventListener("click", (event) => {
  const anchor = event.target.closest('a[href^="#e"]');
  const step = Number(anchor?.getAttribute("href").slice(2));
  if (!step || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  focus = true;
  if (state.view === "timeline" && !anchor.closest("#drawer")) update({ view: "" });
  if (Number(state.e) === step) transcript.reveal(true);
  else update({ e: step });
});
by("views").hidden = false;
by("views").addEventListener("click", ({ target }) => {
  if (target.dataset.view) update({ view: target.dataset.view === "timeline" ? "timeline" : "" });
  else if (target.dataset.go) ({ failure, turn })[target.dataset.go](1);
  else if (target.id === "raw") switchRaw();
  else if (target.id === "outline-open") showOutline(by("outline").hidden);
});
const downloads = document.querySelector(".download");
// On a phone the outline lies over the transcript: a tap beside it closes it, and so does the choice of a row.
document.addEventListener("pointerdown", ({ target }) => {
  if (small.matches && !target.closest("#outline, #outline-open")) showOutline(false);
  if (downloads && !downloads.contains(target)) downloads.open = false;
});

showOutline(!small.matches);
showView();
showRaw();
if (!state.e && /^#e\d+$/.test(location.hash)) update({ e: location.hash.slice(2) });
if (state.e) {
  await outline.fetch(Number(root.dataset.selected) || Number(state.e));
  outline.reveal();
  drawer.show();
  transcript.reveal();
}
if (state.diff) compare(trace);

/** Show another head, which this page's server has made and escaped, unless somebody fills in the form of this one. */
const showHead = (markup) => {
  if (!by("head").querySelector(".annotate[open]")) staying(() => (by("head").innerHTML = markup));
};

/** Show the findings of a long trace, which come later than the rest. */
const find = async () => {
  const { findings, sections: places } = await source.findings();
  trace.find(findings);
  showHead(await source.head());
  for (const number of places) await transcript.renew(number);
};
if (!skeleton.findings) find();

keepUp(root, trace, async (grown, shape, markup) => {
  const [before, known] = [trace.rows.length, stamps];
  trace = outline.trace = drawer.trace = until(grown);
  times = sections(trace);
  stamps = shape.stamps;
  showHead(markup);
  outline.grow(trace);
  overview.grow(trace);
  timeline.grow(trace);
  await transcript.grow(trace, stamps, known);
  drawer.show(true);
  if (state.q) search.run();
  if (!shape.findings) find();
  if (stamps.length > known.length) below.add(trace.rows.length - before, known.length);
});
/** Extend the durations of open calls. */
const tick = () => {
  if (source.offline || !trace.tick(Date.now())) return;
  for (const view of [outline, overview, timeline]) view.soon();
  for (const row of trace.open) {
    const told = document.querySelector(`#e${row.step} .state.running`);
    if (told) told.dataset.took = duration(row.took);
  }
};
tick();
setInterval(tick, 1000);
root.dataset.ready = "";
