// The detail of one step: its output, input, cost and related steps, and its records as they are.

import { WORDS, dollars, duration, make } from "whyops/trace-data";
import { printed } from "whyops/trace-json";
import { source } from "whyops/trace-source";
import { say, state, update } from "whyops/trace-state";

const of = (records, ...types) => records.find((record) => types.includes(record?.eventType));

/** The arguments of a call, as in its record. */
export const given = (records) => {
  const asked = of(records, "tool_call_request", "user_message", "tool_result", "embedding_request", "llm_thinking");
  const content = asked?.content;
  if (asked?.eventType === "tool_call_request") return content?.toolCalls?.[0]?.arguments;
  if (asked?.eventType === "llm_thinking") return asked.metadata?.input;
  return content?.messages ?? content;
};

/** The result of a call, as in its record. */
export const result = (records) => {
  const answer = of(records, "tool_call_response", "llm_response", "embedding_response", "step_end");
  const { content } = answer ?? {};
  if (answer?.eventType === "tool_call_response") {
    const results = content?.toolResults;
    const alone = results && typeof results === "object" && Object.keys(results).length === 1;
    return alone && "result" in results ? results.result : results;
  }
  if (answer?.eventType === "step_end") return content?.output;
  return content;
};

/** OpenTelemetry's names and values for the known data of a call. */
const attributes = (row, records) => {
  const answer = of(records, "llm_response", "embedding_response", "tool_call_response");
  const { metadata = {}, content = {} } = answer ?? {};
  const usage = metadata.usage ?? {};
  const sent = ["promptTokens", "cacheReadTokens", "cacheCreationTokens"].reduce((sum, name) => sum + (Number(usage[name]) || 0), 0);
  const model = row.kind === "llm" || row.kind === "embedding";
  const operation = { tool: "execute_tool", llm: "chat", embedding: "embeddings", step: "invoke_agent" }[row.kind];
  return Object.entries({
    "gen_ai.operation.name": operation,
    "gen_ai.provider.name": model ? metadata.provider : undefined,
    "gen_ai.response.model": model ? metadata.model : undefined,
    "gen_ai.tool.name": row.kind === "tool" ? row.name : undefined,
    "gen_ai.usage.input_tokens": model && sent ? sent : undefined,
    "gen_ai.usage.output_tokens": model ? usage.completionTokens : undefined,
    "gen_ai.usage.cache_read.input_tokens": model ? usage.cacheReadTokens : undefined,
    "gen_ai.response.finish_reasons": content?.finishReason ? [content.finishReason] : undefined,
    "gen_ai.agent.name": records[0]?.agentName,
    "gen_ai.conversation.id": records[0]?.traceId,
    "error.type": of(records, "error")?.content?.type,
  }).filter(([, value]) => value !== undefined && value !== null && value !== "");
};

/** An error as type and message; what it came from, what is in it and its notes, as the page has them. */
const headline = (error) => [error?.type, error?.message].filter((part) => typeof part === "string" && part).join(": ");
const behind = (words, error, most) => (headline(error) && most ? [`${words} ${headline(error)}`, ...background(error, most - 1)] : []);
const background = (error, most = 3) => {
  const inner = Array.isArray(error.exceptions) ? error.exceptions : [];
  const rest = inner.length > 3 ? ` and ${inner.length - 3} more` : "";
  const notes = Array.isArray(error.notes) ? error.notes : [];
  return [
    ...behind("because of", error.cause, most),
    ...behind("while handling", error.context, most),
    ...(inner.length ? [`in it ${inner.slice(0, 3).map(headline).join(", ")}${rest}`] : []),
    ...notes.slice(0, 3).map((note) => `note: ${note}`),
  ];
};

const table = (rows) =>
  make("table", {}, ...rows.map(([name, value, shown]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "num" }, shown ?? (typeof value === "string" ? value : JSON.stringify(value))))));

const usage = (row, records) => {
  const used = of(records, "llm_response", "embedding_response")?.metadata?.usage;
  if (!used || typeof used !== "object") return [];
  const counts = [
    ["prompt, not cached", used.promptTokens], ["prompt, from the cache", used.cacheReadTokens],
    ["prompt, written to the cache", used.cacheCreationTokens], ["answer", used.completionTokens],
  ].filter(([, count]) => Number.isFinite(count)).map(([name, count]) => [name, count, count.toLocaleString("en")]);
  if (row.cost) counts.push(["cost", "", dollars(row.cost)]);
  return counts.length ? [make("h3", {}, "Tokens"), table(counts)] : [];
};

/** Copy a text, and announce it; returns true if the browser let it. */
export const copied = async (text, what) => {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
    return true;
  } catch {
    say("The browser does not let this page copy.");
    return false;
  }
};

/** Copy a text, and confirm it on the button for a moment. */
const copying = (text, what) => {
  const button = make("button", { type: "button", class: "quiet" }, "copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text(), what)) ? "copied" : "not copied";
  });
  return button;
};

const block = (title, value) => {
  if (value === undefined || value === null || value === "") return [];
  const whole = () => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
  return [make("h3", {}, title, copying(whole, title)), make("div", { class: "json" }, printed(value))];
};

/** The drawer in *aside* beside *trace*. */
export class Drawer {
  #shown = "";
  #wanted = 0;

  constructor(aside, columns, trace) {
    this.aside = aside;
    this.columns = columns;
    this.trace = trace;
  }

  /** Show the detail of the chosen step, if it is open. */
  async show(again = false) {
    const row = this.trace.at(Number(state.e));
    const open = Boolean(state.detail && row);
    this.aside.hidden = !open;
    this.columns.classList.toggle("detailed", open);
    if (!open || (!again && this.#shown === row.step)) return;
    const wanted = ++this.#wanted;
    try {
      const records = await source.records(row.step);
      if (wanted !== this.#wanted) return;
      if (this.#shown !== row.step) this.aside.scrollTop = 0;
      this.#shown = row.step;
      this.aside.replaceChildren(...this.#content(row, records));
    } catch (problem) {
      this.aside.replaceChildren(this.#top(row), make("p", {}, `The records did not come (${problem.message}). Is the server still running?`));
      this.#shown = "";
    }
  }

  #top(row) {
    const close = make("button", { type: "button", class: "quiet", "aria-label": "Close the detail", click: () => update({ detail: "" }) }, "✕");
    const name = row.turn ? `Turn ${row.turn} · ${row.model || row.name}` : row.name;
    return make("header", {}, make("i", { class: `icon ${row.kind}`, "aria-hidden": "true" }), make("h2", { class: "cut", title: name }, name),
      make("a", { href: `?e=${row.step}&detail=1`, title: "A link to this step" }, `#${row.step}`), close);
  }

  #content(row, records) {
    const failed = of(records, "error")?.content;
    const facts = [WORDS[row.state], duration(row.took), `after ${duration(row.start)}`].filter(Boolean).join(" · ");
    const problem = failed ? [headline(failed), ...background(failed)].join("; ") : "";
    return [
      this.#top(row),
      make("p", { class: row.state === "error" ? "bad" : "dim" }, facts),
      ...this.#links(row),
      ...(problem ? [make("h3", {}, "Error"), make("div", { class: "problem-text text" }, problem)] : []),
      ...(typeof failed?.stack === "string" ? [make("h3", {}, "Raised at"), make("pre", {}, failed.stack)] : []),
      ...(problem ? [] : block("Result", result(records))),
      ...block(row.kind === "llm" ? "Given" : "Arguments", given(records)),
      ...usage(row, records),
      make("h3", {}, "Attributes"),
      table(attributes(row, records)),
      make("h3", {}, records.length === 1 ? "Record" : `${records.length} records`, copying(() => JSON.stringify(records, null, 2), "Records")),
      ...records.map((record) => make("div", { class: "json" }, printed(record))),
    ];
  }

  #links(row) {
    const link = (step) => make("a", { href: `#e${step}` }, this.#name(step));
    const [retryOf, retriedBy] = this.trace.links[row.step] ?? [0, 0];
    const lines = [
      row.asked && ["asked for by ", link(row.asked)],
      row.parent && ["inside ", link(row.parent.step)],
      retryOf && ["tries again ", link(retryOf)],
      retriedBy && ["tried again by ", link(retriedBy)],
      ...this.trace.findings.filter(({ steps }) => steps.some((step) => this.trace.at(step) === row))
        .map(({ severity, title }) => [make("b", {}, `${severity} `), title]),
    ];
    return lines.filter(Boolean).map((line) => make("p", {}, ...line));
  }

  #name(step) {
    const row = this.trace.at(step);
    return row ? `${row.turn ? `turn ${row.turn}` : row.name} #${row.step}` : `#${step}`;
  }
}
