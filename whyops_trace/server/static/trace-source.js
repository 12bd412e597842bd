// The source of data that the page does not hold: its server, or itself if it is a file.

const root = document.getElementById("trace");
const packed = document.getElementById("packed");

const fetched = async (path, options) => {
  const answer = await fetch(root.dataset.base + path, options);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer;
};

const json = (path, options) => fetched(path, options).then((answer) => answer.json());
const text = (path) => fetched(path).then((answer) => answer.text());

const server = {
  offline: false,
  skeleton: () => json(`/skeleton?v=${encodeURIComponent(root.dataset.version)}`, { cache: "default" }),
  children: (step) => json(`/children/${step}`),
  previews: (first, end) => json(`/previews?from=${first}&to=${end}`),
  head: () => text("/head"),
  findings: () => json("/findings"),
  sections: (first, end) => text(`/sections?from=${first}&to=${end}`),
  records: async (step) => exact(await text(`/events/${step}`)),
  find: (words) => json(`/find?q=${encodeURIComponent(words)}`),
};

/** Parse JSON. A number that JavaScript cannot reproduce as written, such as 1.0 or 2**60, keeps its text. */
export const exact = (said) => JSON.parse(said, (_, value, context) =>
  typeof value === "number" && JSON.rawJSON && context?.source !== String(value) ? JSON.rawJSON(context.source) : value);

/** Unpack base64 of gzip of JSON. */
const unpacked = async (encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return exact(await new Response(stream).text());
};

const within = () => {
  let content;
  const all = () => (content ??= unpacked(packed.textContent.trim()));
  return {
    offline: true,
    skeleton: async () => (await all()).skeleton,
    children: async () => ({}),
    sections: async (first) => (await all()).sections[first] ?? "",
    records: async (step) => {
      const { records, nodes } = await all();
      return (nodes[step] ?? []).map((number) => records[number]);
    },
    find: async (words) => {
      const { texts } = await all();
      const sought = words.toLowerCase();
      const counts = texts.map(([step, said]) => [step, said.toLowerCase().split(sought).length - 1]).filter(([, times]) => times);
      return { count: counts.reduce((sum, [, times]) => sum + times, 0), steps: counts.map(([step]) => step) };
    },
  };
};

/** The source of this page. */
export const source = packed ? within() : server;
