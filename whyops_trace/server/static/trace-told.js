// Input and answer of a turn as readable lines: without brackets, escapes, and the ids of calls.

import { given } from "whyops/trace-drawer";
import { exact } from "whyops/trace-source";

const DEEPEST = 40; // most levels of a value
const CALLS = new Set(["tool_use", "server_tool_use", "function_call", "custom_tool_call"]);
const RESULTS = new Set(["tool_result", "function_call_output", "custom_tool_call_output"]);
const MARKS = new Set(["type", "id", "call_id", "tool_call_id", "tool_use_id", "status", "index", "cache_control"]);
const AMBIGUOUS = /^(-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|null|)$/; // texts that would look like another value

const isValue = (thing) => thing === null || typeof thing !== "object" || JSON.isRawJSON?.(thing);
const word = (thing) => (typeof thing === "string" ? thing : "");

/** The value of JSON in a text; any other value as it is. */
const parsed = (value) => {
  if (typeof value !== "string" || !/^\s*[[{]/.test(value)) return value;
  try {
    return exact(value);
  } catch {
    return value;
  }
};

/** The lines of a value: a text as it is, members one below the other. */
const readable = (given, depth = 0) => {
  const value = parsed(given);
  if (value === undefined || (depth === 0 && (value === null || value === ""))) return [];
  if (typeof value === "string") return depth && AMBIGUOUS.test(value) ? [JSON.stringify(value)] : value.split("\n");
  if (isValue(value)) return [value?.rawJSON ?? String(value)];
  if (depth > DEEPEST) return ["…"];
  const members = Object.entries(value);
  if (!members.length && depth) return [Array.isArray(value) ? "[]" : "{}"];
  return members.flatMap(([name, one]) => {
    const inner = parsed(one);
    const lines = readable(inner, depth + 1);
    const label = Array.isArray(value) ? "-" : `${name}:`;
    const flat = lines.length === 1 && (isValue(inner) || !Object.keys(inner).length);
    return flat ? [`${label} ${lines[0]}`] : [label, ...lines.map((line) => `  ${line}`)];
  });
};

/** The content of a message: pairs of a role, or of a requested call, and a value. */
const spoken = (one, who, depth = 0) => {
  if (one === undefined || depth > DEEPEST) return [];
  if (Array.isArray(one)) return one.flatMap((part) => spoken(part, who, depth + 1));
  if (isValue(one)) return [[who, one]];
  const call = one.function ?? one.functionCall ?? (CALLS.has(one.type) ? one : null);
  if (call && typeof call === "object") return [[`asked for ${word(call.name)}`, call.arguments ?? call.input ?? call.args]];
  const speaker = [word(one.role) || (RESULTS.has(one.type) ? "tool" : who), word(one.name)].filter(Boolean).join(" ");
  const text = one.text ?? one.thinking ?? one.refusal;
  if (typeof text === "string") return [[speaker, text]];
  const inner = one.content ?? one.parts ?? one.output ?? one.functionResponse;
  if (inner !== undefined || one.role) return [...spoken(inner, speaker, depth + 1), ...spoken(one.tool_calls ?? [], who, depth + 1)];
  return [[speaker, Object.fromEntries(Object.entries(one).filter(([name]) => !MARKS.has(name)))]];
};

/** The name of a tool on offer. */
const named = (tool) => word(tool?.function?.name) || word(tool?.name) || word(tool?.type);

/** The input and the answer of a turn, from its records. */
export const told = (records) => {
  const sent = given(records);
  const { systemPrompt, tools } = records.find(({ metadata }) => metadata?.systemPrompt || metadata?.tools)?.metadata ?? {};
  const content = records.find((record) => record?.eventType === "llm_response")?.content;
  const answer = content && typeof content === "object" ? content : { content };
  return [
    { role: "system", content: systemPrompt },
    { role: "tools on offer", content: Array.isArray(tools) ? tools.map(named).filter(Boolean).join("\n") : "" },
    ...(Array.isArray(sent) ? sent : [sent]),
    { role: "assistant", content: answer.content, tool_calls: answer.toolCalls },
    { role: "stopped", content: answer.finishReason },
  ].flatMap((message) => {
    let last = "";
    return spoken(message, "message").flatMap(([who, value]) => {
      const lines = readable(value);
      const title = who === last && !who.startsWith("asked for") ? [] : [`── ${who}`];
      if (!lines.length && !who.startsWith("asked for")) return [];
      last = who;
      return [...title, ...lines];
    });
  });
};
