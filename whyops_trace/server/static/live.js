// Server-sent events, for as long as somebody looks at the page.

/**
 * Follow a stream of the server.
 *
 * A browser opens only six connections to one server, so a page that is hidden gives its own back; when it is seen
 * again the stream is opened anew, at an address that says what is known already.
 *
 * @param address   returns the address of the stream
 * @param handlers  by the names of messages, what is called with their data
 * @param told      called with "live", or with "lost" while the server does not answer
 * @returns a function that ends it
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
        close(); // the browser gives up where the answer is no stream
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
