// Keys of a page, and the dialog that lists them.

const bound = new Map();
let early = []; // keys pressed before the page had bound its keys

const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

/**
 * Bind keys to handlers: `bind({ j: next, Enter: open })`. Keys are ignored while somebody types into a field or a
 * dialog is open, and together with Ctrl, Alt or Meta. A handler that returns false leaves the key to the browser.
 * Keys pressed before the page was ready are handled now.
 */
export const bind = (handlers) => {
  for (const [key, handler] of Object.entries(handlers)) bound.set(key, handler);
  const waiting = early ?? [];
  early = null;
  waiting.forEach(makeUp);
};

const makeUp = (event) => {
  const field = document.activeElement;
  if (document.querySelector("dialog[open]:modal")) return;
  if (!isTyping(field)) bound.get(event.key)?.(event);
  // An earlier key moved the focus into a field.
  else if (event.key.length === 1) {
    field.value += event.key;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  } else field.dispatchEvent(new KeyboardEvent("keydown", { key: event.key, bubbles: true, cancelable: true }));
};

const help = document.getElementById("help");
const opener = document.getElementById("help-open");

if (help && opener) {
  opener.hidden = false;
  opener.addEventListener("click", () => help.showModal());
  help.addEventListener("click", (event) => {
    if (event.target === help) help.close(); // a click beside the dialog
  });
  bound.set("?", () => help.showModal());
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]:modal")) return;
  const handler = bound.get(event.key);
  if (!handler) early?.push(event);
  else if (handler(event) !== false) event.preventDefault();
});
