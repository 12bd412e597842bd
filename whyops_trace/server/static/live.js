// Server-sent events, while the page is visible.

/**
 * Follow a stream of the server.
 *
 * A browser opens only six connections to one server, so a hidden page closes its own. When it is visible again the
 * stream is opened anew, at an address that names the last known state.
 *
 * @param address   function that returns the address of the stream
 * @param handlers  handlers of messages, by name, called with their data
 * @param told      function called with "live", or with "lost" while the server does not answer
 * @returns a function that ends the stream
 */
export const follow = (address, handlers, told = () => {}) => {
  let source = null;

  const close = () => {
    source?.close();
    source = null;
  };
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(address());
    source.addEventListener("open", () => told("live"));
    source.addEventListener("error", () => {
      told("lost");
      if (source?.readyState === EventSource.CLOSED) {
        close(); // the browser gives up if the answer is not a stream
        setTimeout(open, 3000);
      }
    });
    for (const [name, handler] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
    }
  };
  const turn = () => (document.hidden ? close() : open());

  document.addEventListener("visibilitychange", turn);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
  return () => {
    document.removeEventListener("visibilitychange", turn);
    window.removeEventListener("pagehide", close);
    window.removeEventListener("pageshow", open);
    close();
  };
};

export const isSupported = typeof EventSource !== "undefined" && location.protocol.startsWith("http");
