// The list of traces: keys, search while one types, and live updates that do not move the text being read.

import { bind } from "whyops/keys";
import { follow, isSupported } from "whyops/live";

const TYPING_MS = 180;
/** Milliseconds between two requests to the server. The first change after a pause is shown at once. */
const PAUSE_MS = 200;

const search = document.getElementById("q");
const fresh = document.getElementById("fresh");
const dot = document.getElementById("live");

const links = (root = document) => [...root.querySelectorAll("a.row")];
const keyOf = (link) => link.getAttribute("href");
const rowOf = (link) => link.closest("tr");

/** Milliseconds to the next request while the search index is being filled: more comes without a change. */
const FILLING_MS = 400;
const isBehind = () => document.getElementById("list").dataset.behind !== undefined;

/** The page of the server now, if it has more than this one. */
let waiting = null;

const fetchPage = async (signal) => {
  const answer = await fetch(location.pathname + location.search, { headers: { accept: "text/html" }, signal });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
};

const replace = (id, page) => document.getElementById(id).replaceWith(document.adoptNode(page.getElementById(id)));

/** Show a page from the server, and keep the focus on its row. */
const show = (page) => {
  const focused = document.activeElement?.matches("a.row") ? keyOf(document.activeElement) : null;
  replace("saved", page);
  replace("list", page);
  document.title = page.title;
  waiting = null;
  fresh.hidden = true;
  if (focused) links().find((link) => keyOf(link) === focused)?.focus({ preventScroll: true });
};

/** Update the rows of the page in place, and show the number of new ones. */
const update = (page) => {
  const shown = new Map(links().map((link) => [keyOf(link), rowOf(link)]));
  if (shown.size === 0 || links(page).length === 0 || isBehind()) {
    show(page);
    return;
  }
  replace("saved", page.cloneNode(true));
  let news = 0;
  for (const link of links(page)) {
    const old = shown.get(keyOf(link));
    const row = rowOf(link);
    if (!old) news += 1;
    else if (old.outerHTML !== row.outerHTML) {
      const focused = old.contains(document.activeElement);
      old.replaceWith(document.importNode(row, true));
      if (focused) links().find((one) => keyOf(one) === keyOf(link)).focus({ preventScroll: true });
    }
  }
  // On a later page rows have moved in from the page before. New traces are on the first page.
  if (new URLSearchParams(location.search).has("after")) news = 0;
  waiting = news ? page : null;
  fresh.hidden = !news;
  const label = `${news} new`;
  if (fresh.textContent !== label) fresh.textContent = label;
};

const showNew = () => {
  if (!waiting) return false;
  show(waiting);
  scrollTo(0, 0);
  links()[0]?.focus();
  return true;
};
fresh.addEventListener("click", showNew);

// Live.

let looking = false;
let again = false;
const look = async () => {
  again = looking;
  if (looking) return;
  looking = true;
  try {
    update(await fetchPage());
    await new Promise((done) => setTimeout(done, isBehind() ? FILLING_MS : PAUSE_MS));
  } catch {
    // the server is gone, as the dot shows; the stream requests again when it is back
  }
  looking = false;
  if (again || isBehind()) look();
};

if (isSupported) {
  follow(() => "/live", { changed: look }, (state) => {
    if (state === "live") look(); // changes while the stream was closed
    dot.hidden = false;
    dot.textContent = state;
    dot.classList.toggle("lost", state === "lost");
  });
}

// Search while one types.

let typing = null;
let searching = null;
search?.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(async () => {
    searching?.abort();
    searching = new AbortController();
    const text = search.value.trim();
    history.replaceState(null, "", text ? `/?${new URLSearchParams({ q: text })}` : "/");
    try {
      show(await fetchPage(searching.signal));
      if (isBehind()) look();
    } catch {
      // superseded by more typing, or the server is gone; Enter requests the page itself
    }
  }, TYPING_MS);
});
search?.addEventListener("keydown", (event) => {
  if (event.key === "Escape" || event.key === "ArrowDown") {
    event.preventDefault();
    const first = links()[0];
    if (first) first.focus();
    else search.blur();
  }
});

// Keys. The chosen row is in the address, so that it is restored on return.

const move = (by) => {
  const all = links();
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
  next?.focus();
  if (next) rowOf(next).scrollIntoView({ block: "nearest" });
};
document.addEventListener("focusin", (event) => {
  if (event.target.matches("a.row")) {
    history.replaceState(null, "", `${location.pathname}${location.search}#${keyOf(event.target)}`);
  }
});
const follows = (selector) => {
  const link = document.querySelector(selector);
  if (!link) return false;
  link.click();
  return true;
};

bind({
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => (document.activeElement?.matches("a.row") ? move(1) : false),
  ArrowUp: () => (document.activeElement?.matches("a.row") ? move(-1) : false),
  "/": () => search?.select(),
  f: () => follows("#saved a.bad"),
  o: () => follows("#older"),
  ".": showNew,
});

const chosen = location.hash.slice(1);
if (chosen) links().find((link) => keyOf(link) === chosen)?.focus();
