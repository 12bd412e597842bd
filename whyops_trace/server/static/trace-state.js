// The state of the view. Every part of it is in the address, so that the address opens the same view elsewhere.

const NAMES = ["e", "view", "q", "detail", "from", "to", "diff"];

const read = () => {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(NAMES.map((name) => [name, given.get(name) ?? ""]));
};

/** Members: e the chosen step, view, q the searched text, detail "1" if it is open, from and to in ms, diff. */
export const state = read();

const watchers = [];

/** Call *watcher* with the names of the changed members, after each change. */
export const watch = (watcher) => watchers.push(watcher);

/** Change some members of the state. */
export const update = (changes) => {
  const changed = Object.keys(changes).filter((name) => String(changes[name] ?? "") !== state[name]);
  if (!changed.length) return;
  for (const name of changed) state[name] = String(changes[name] ?? "");
  try {
    history.replaceState(null, "", address());
  } catch {
    // A browser limits changes to a hundred in some seconds, and forbids them for some files. The next one has all.
  }
  for (const watcher of watchers) watcher(new Set(changed));
};

/** The address of a state. */
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

/** Announce a text to screen readers. */
export const say = (text) => {
  said.textContent = text;
};
