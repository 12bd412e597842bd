// Two turns side by side: the common and the different lines of their prompts and answers.

import { make } from "whyops/trace-data";
import { source } from "whyops/trace-source";
import { state, update } from "whyops/trace-state";
import { told } from "whyops/trace-told";

const AROUND = 3; // lines shown around a difference
const LINES = 4000; // most lines compared; common beginnings and ends of prompts cost nothing
const EDITS = 1500;

/** Pairs of a sign and a line, by a longest common subsequence: Myers's algorithm, stopped if too much differs. */
const compared = (before, after) => {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let [endBefore, endAfter] = [before.length, after.length];
  while (endBefore > start && endAfter > start && before[endBefore - 1] === after[endAfter - 1]) [endBefore, endAfter] = [endBefore - 1, endAfter - 1];
  const same = (line) => [" ", line];
  return [
    ...before.slice(0, start).map(same),
    ...edits(before.slice(start, endBefore), after.slice(start, endAfter)),
    ...before.slice(endBefore).map(same),
  ];
};

const edits = (before, after) => {
  const replaced = () => [...before.map((line) => ["-", line]), ...after.map((line) => ["+", line])];
  if (!before.length || !after.length || before.length + after.length > LINES) return replaced();
  const trail = [];
  let reached = new Map([[1, 0]]);
  for (let count = 0; count <= Math.min(before.length + after.length, EDITS); count++) {
    const next = new Map(reached);
    for (let k = -count; k <= count; k += 2) {
      const down = k === -count || (k !== count && (reached.get(k - 1) ?? -1) < (reached.get(k + 1) ?? -1));
      let x = down ? (reached.get(k + 1) ?? 0) : (reached.get(k - 1) ?? 0) + 1;
      let y = x - k;
      while (x < before.length && y < after.length && before[x] === after[y]) [x, y] = [x + 1, y + 1];
      next.set(k, x);
      if (x >= before.length && y >= after.length) return traced([...trail, reached], before, after);
    }
    trail.push(reached);
    reached = next;
  }
  return replaced();
};

const traced = (trail, before, after) => {
  const lines = [];
  let [x, y] = [before.length, after.length];
  for (let count = trail.length - 1; count >= 0; count--) {
    const reached = trail[count];
    const k = x - y;
    const down = k === -count || (k !== count && (reached.get(k - 1) ?? -1) < (reached.get(k + 1) ?? -1));
    const from = down ? k + 1 : k - 1;
    const [fromX, fromY] = [reached.get(from) ?? 0, (reached.get(from) ?? 0) - from];
    while (x > Math.max(fromX, 0) && y > Math.max(fromY, 0)) {
      [x, y] = [x - 1, y - 1];
      lines.push([" ", before[x]]);
    }
    if (count && down) lines.push(["+", after[--y]]);
    else if (count) lines.push(["-", before[--x]]);
  }
  return lines.reverse();
};

const alike = (count) => make("span", { class: "same" }, `… ${count.toLocaleString("en")} ${count === 1 ? "line" : "lines"} alike`);

const shown = (pairs) => {
  const near = new Set();
  pairs.forEach(([sign], i) => {
    if (sign !== " ") for (let j = i - AROUND; j <= i + AROUND; j++) near.add(j);
  });
  const lines = [];
  let skipped = 0;
  pairs.forEach(([sign, line], i) => {
    if (!near.has(i)) {
      skipped++;
      return;
    }
    if (skipped) lines.push(alike(skipped));
    skipped = 0;
    lines.push(make("span", { class: { "+": "added", "-": "removed", " ": "same" }[sign] }, `${sign} ${line}`));
  });
  if (skipped) lines.push(alike(skipped));
  return lines.slice(0, 3000);
};

/** Compare the chosen turn of *trace* with another, in a dialog. */
export const compare = async (trace) => {
  const chosen = trace.at(Number(state.e));
  const turn = chosen?.turn ? chosen : (trace.turns.findLast((row) => row.step <= (chosen?.step ?? Infinity)) ?? trace.turns[0]);
  const before = trace.turns[trace.turns.indexOf(turn) - 1] ?? trace.turns[1];
  if (!turn || !before) return false;
  const option = (row, other) => make("option", { value: row.turn, selected: row === other }, `Turn ${row.turn}`);
  const wanted = trace.turns.find((row) => row.turn === Number(state.diff)) ?? before;
  const select = make("select", { "aria-label": "Compare with" }, ...trace.turns.filter((row) => row !== turn).map((row) => option(row, wanted)));
  const lines = make("pre", { class: "diff", tabindex: "0", "aria-label": "Differences" });
  const close = make("button", { type: "button" }, "Close");
  const dialog = make("dialog", { class: "compare", "aria-labelledby": "compare-title" },
    make("h2", { id: "compare-title" }, `Turn ${turn.turn}, compared with `, select), lines, make("form", { method: "dialog" }, close));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    update({ diff: "" });
  });
  const show = async () => {
    const other = trace.turns.find((row) => row.turn === Number(select.value));
    update({ diff: other.turn, e: turn.step });
    const [one, two] = await Promise.all([source.records(other.step), source.records(turn.step)]);
    lines.replaceChildren(...shown(compared(told(one), told(two))));
  };
  select.addEventListener("change", show);
  document.body.append(dialog);
  dialog.showModal();
  await show();
  return true;
};
