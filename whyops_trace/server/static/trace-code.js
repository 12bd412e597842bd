// The colours of code: ranges of its text that the style sheet knows by name, so that code has no elements inside.

const NAMES = ["comment", "string", "number", "word"];
const BLOCK = "\\/\\*[^]*?(?:\\*\\/|$)";
const PLAIN = /^(text|txt|plain\w*|md|markdown|log|diff|output|)$/;
/** Comments, by the language. */
const COMMENTS = [[/^(py|sh|.*sh$|console|ya?ml|toml|rb|ruby|r$|docker|make|ini)/, "#.*"], [/^(\w*sql|lua)/, `--.*|${BLOCK}`], [/^(?!json)/, `\\/\\/.*|${BLOCK}`], [/^/, "(?!)"]];
const WORDS =
  "and|as|assert|async|await|break|case|catch|class|const|continue|def|default|delete|do|elif|else|enum|except|export|extends|false|False|finally|fn|for|from|func|function|if|impl|import|in|insert|interface|into|is|join|lambda|let|match|mut|new|nil|None|not|null|or|package|pass|private|pub|public|raise|return|select|self|static|struct|super|switch|then|this|throw|true|True|try|type|var|void|where|while|with|yield";

const kinds = globalThis.CSS?.highlights ? NAMES.map(() => new Highlight()) : [];
kinds.forEach((ranges, i) => CSS.highlights.set(`code-${NAMES[i]}`, ranges));

/** Colour the text of an element by its language. */
export const colour = ({ firstChild: text }, language) => {
  if (!text || PLAIN.test(language) || !kinds.length) return;
  const comment = COMMENTS.find(([languages]) => languages.test(language))[1];
  const strings = `"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?|\`[^\`]*\`?`;
  const parts = new RegExp(`(${comment})|(${strings})|\\b(\\d[\\w.]*)|\\b(${WORDS})\\b`, language.endsWith("sql") ? "gi" : "g");
  for (const match of text.data.matchAll(parts)) {
    const kind = NAMES.findIndex((_, i) => match[i + 1] !== undefined);
    kinds[kind].add(new StaticRange({ startContainer: text, startOffset: match.index, endContainer: text, endOffset: match.index + match[0].length }));
  }
};

/** Forget the code that is not in the page any more. */
export const forget = () => {
  for (const ranges of kinds) for (const range of ranges) if (!range.startContainer.isConnected) ranges.delete(range);
};
