// What is shown, of which every part stands in the address: opening it elsewhere shows the same.

const NAMES = ["e", "view", "q", "detail", "from", "to", "diff"];

const read = () => {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(NAMES.map((name) => [name, given.get(name) ?? ""]));
};

/** The members: e the chosen step, view, q what is searched for, detail "1" if it is open, from and to in ms, diff. */
export const state = read();

const watchers = [];

/** Call *watcher* with the names of what changed, whenever something did. */
export const watch = (watcher) => watchers.push(watcher);

/** Change some of what is shown. */
export const update = (changes) => {
  const changed = Object.keys(changes).filter((name) => String(changes[name] ?? "") !== state[name]);
  if (!changed.length) return;
  for (const name of changed) state[name] = String(changes[name] ?? "");
  try {
    history.replaceState(null, "", address());
  } catch {
    // A browser allows a hundred changes in some seconds, and none of some files; the next one tells it all.
  }
  for (const watcher of watchers) watcher(new Set(changed));
};

/** The address of what is shown. */
export const address = () => {
  const given = new URLSearchParams(location.search);
  for (const name of NAMES) {
    if (state[name]) given.set(name, state[name]);
    else given.delete(name);
  }
  const query = given.toString();
  return location.pathname + (query ? `?${query}` : "");
};

const said = document.getElementById("said");

/** Tell readers of the screen what happened. */
export const say = (text) => {
  said.textContent = text;
};
