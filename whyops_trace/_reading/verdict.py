"""
The verdict of a tool's result on its own call: that it failed, or that there was nothing.

Most tools of agents do not raise. They return ``Error: no such order``, ``{"success": false}`` or an exit code, and the
model reads it. The rules look at the shape of a result and at the first and last words of a text, never at its subject.
Of a text only so many characters are looked at, so that no text, however long, takes much time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from whyops_trace._reading.excerpt import excerpt, get, without_colours
from whyops_trace._shapes import dicts_of, text_of

#: Largest number of characters of the words of a verdict.
WORDS: Final = 200
#: Characters at the beginning and at the end of a text that are looked at.
_HEAD: Final = 400
_TAIL: Final = 1_000
#: Characters of a traceback at the beginning of an answer.
_LONG: Final = 8_000
#: Longest text that is read as JSON, and longest text that may say that there was nothing.
_JSON: Final = 65_536
_SHORT: Final = 300
#: Levels of results in results that are looked at, and blocks of a content.
_LEVELS: Final = 6
_BLOCKS: Final = 50


class Verdict(NamedTuple):
    """
    A result's verdict on its call.

    Attributes:
        kind: ``failed``, or ``empty`` for a result that says that there was nothing: no rows, no hits, no text.
        words: The words in which it says so, on one line, at most 200 characters; "" if it is empty.
    """

    kind: Literal["failed", "empty"]
    words: str = ""


_EMPTY: Final = Verdict("empty")

# Members
_TRUE_IF_FAILED: Final = ("isError", "is_error", "hasError", "has_error", "failed")
_TRUE_IF_OK: Final = ("success", "ok", "succeeded", "successful")
_ERRORS: Final = ("error", "errors", "exception", "error_message", "errorMessage")
_WORDS: Final = (*_ERRORS, "message", "detail", "details", "reason", "msg", "stderr", "title", "description")
_INNER: Final = (
    "result",
    "results",
    "output",
    "content",
    "text",
    "stdout",
    "data",
    "rows",
    "items",
    "hits",
    "matches",
    "detail",
)
_CODES: Final = (
    "exit_code",
    "exitCode",
    "exitcode",
    "returncode",
    "return_code",
    "returnCode",
    "exit_status",
    "rc",
)
_STATUSES: Final = ("status", "statusCode", "status_code", "http_status", "httpStatus", "code")
#: Members of which one at least is there in a result that failed.
_SIGNS: Final = frozenset((*_TRUE_IF_FAILED, *_TRUE_IF_OK, *_ERRORS, *_CODES, *_STATUSES, "stderr"))
#: Members that say nothing of what came out.
_BESIDE: Final = _SIGNS | {
    "type", "count", "total", "truncated", "query", "annotations", "meta", "_meta", "id", "name", "tool_call_id",
    "tool_use_id", "role",
}  # fmt: skip
_BAD: Final = frozenset(
    {"error", "errored", "exception", "fail", "failed", "failure", "timed_out", "timeout"}
)
#: Statuses that a thing may have as well: they tell of the call if a reason stands beside them.
_BAD_WITH_REASON: Final = frozenset(
    {"blocked", "denied", "forbidden", "invalid", "refused", "rejected", "unauthorized"}
)
#: Texts of a member ``error`` that say that there is none.
_NO_ERROR: Final = frozenset({"", "-", "0", "false", "n/a", "nil", "no", "no error", "none", "null", "ok"})

# Texts
#: A statement is no more than that: what goes on for longer is prose.
_TO_THE_END: Final = rf"[^\x00]{{0,{_SHORT}}}\Z"
_SHELLS: Final = r"(?:[\w./-]+/)?(?:ba|z|da|fi|k)?sh(?:: line)?(?: \d+)?"
_VERBS: Final = (
    r"(?:adding|calling|connecting|creating|deleting|downloading|during|executing|exporting|fetching|finding|getting|"
    r"importing|in|inserting|invoking|listing|loading|occurred|opening|parsing|processing|reading|removing|retrieving|"
    r"running|saving|searching|sending|submitting|updating|uploading|while|with|writing)"
)
_DEEDS: Final = (
    r"(?:access|action|call|change|command|connection|edit|operation|payment|permission|query|request)"
)
_FAILED_HEADS: Final = (
    # Error: no such order | HTTP error 500: ... | npm ERR! ..., but not "Error: none", "Standard error: 0.3"
    r"(?!(?:no|without|zero)\b)(?:[\w.'`\"-]+ ){0,4}?(?<![-\w])(?:errors?|exception|failure|failed|fatal|err)"
    r"(?:\s?(?:\([^)\n]{0,60}\)|\[[^]\n]{0,60}\]|\#?\d{2,6}|e\w{1,20}|[a-z]{1,4}\d{1,5}))?"
    r"\s?(?::|!| [-\u2013\u2014] )"
    r"(?!\s*(?:none|null|nil|false|n/a)?\W*(?:\n|$))(?!\s*[-+]?\d[\d.,]*(?!\d|\s?[a-z]{3}))",
    r"err(?:or)?!|error code[:=]? \d|fatal:|<(?:\w{1,30}_)?error>|\[(?:critical|error|fatal)\]|"
    # psql: error: ... | E: Unable to ... | the page of a server's error
    r"[\w./+-]{1,40}: (?:fatal )?(?:error|fatal)\s?:|e: (?=[a-z][a-z ]{3})|"
    r"<(?:!doctype )?html[^\x00]{0,250}?<title>\s*(?:error(?: [45]\d\d| page)?\s*<|"
    r"(?:error )?[45]\d\d (?:bad|conf|forb|gate|gone|inter|meth|not|pay|prox|req|serv|too|unau))|"
    # A cross, but not in a list that has a tick as well.
    r"[\u274c\u2717\u2718\u26d4](?![^\x00]*[\u2705\u2713\u2714])",
    rf"(?:an? )?(?:unexpected |unknown |internal |server )*error {_VERBS}\b|errors?\s*(?:\n|$)|something went wrong",
    # ValueError: ... | java.lang.NullPointerException | [Errno 2] | ENOENT: ...
    r"(?:uncaught )?[a-z_][\w.$]{0,80}(?:error|exception|timeout|interrupt)\b\s?(?:[:(]|\n|$)|\[errno\s-?\d+\]",
    r"e(?:acces|addrinuse|connrefused|connreset|exist|isdir|noent|notdir|notempty|notfound|perm|pipe|timedout)\b",
    r"traceback \(most recent",
    # HTTP 500 | Status code: 503 | 404 Not Found | 403 Client Error: ...
    r"(?:http(?:/\d(?:\.\d)?)? )?(?:error )?(?:(?:response )?status(?: code)?[:=]? )?(?:http )?[45]\d\d\s?[:-]? "
    r"(?:bad (?:gateway|request)|client error|conflict|forbidden|gateway|gone|internal server|method not|"
    r"not (?:acceptable|found|implemented)|payment req|precondition|request t|server error|service unav|too many|"
    r"unauthori[sz]ed|unprocessable)",
    r"(?:http(?:/\d(?:\.\d)?)?|(?:response )?status code|http status|http error)[:=]? [45]\d\d\b",
    # Failed to ... | Unable to ... | Payment failed. | The request was rejected
    r"(?:sorry,? |i'm sorry,? (?:but )?|oops[,!]? )?(?:failed|unable) to [a-z]+\b(?!\s?: ?0\b)|"
    r"(?:sorry,? (?:but )?(?:i |we )?)?(?:can\s?not|can't|could not|couldn't) [a-z]+",
    r"(?!no\b)(?:[\w'`\"-]+ ){1,5}(?:failed|timed out|did not succeed|was unsuccessful)"
    rf"(?:\s*:|(?: (?:after|at|because|during|due|in|on|to|while|with)\b|\s*[.!,;(]|\s*$)(?={_TO_THE_END}))",
    rf"(?:[\w'`\"-]+ ){{0,3}}{_DEEDS} (?:is|was|were|(?:has|have) been) (?:blocked|denied|refused|rejected|"
    r"not (?:allowed|applied|authori[sz]ed|permitted|saved|valid))\b",
    rf"{_DEEDS} (?:denied|refused|rejected|reset|aborted|forbidden|not permitted)|"
    r"(?:access|policy|security) violation:|"
    r"the (?:last )?command\b[^\x00]{1,300}? timed out and (?:has been|was)\s{1,3}killed\b",
    r"(?:request |connection |operation |read )?(?:timed?\s?-?out|deadline exceeded)\b(?! (?:is|set|was)\b)|"
    r"too many requests|insufficient (?:balance|credits?|funds|permissions?|privileges|stock)\b|"
    r"(?:you (?:do not|don't)|user does not) have (?:access|permission)\b|"
    r"(?:rate limit|quota) (?:was )?exceeded|service unavailable|(?:unauthori[sz]ed|forbidden)\b\W*(?:\n|$)|"
    r"(?:you are )?not (?:allowed|authenticated|authori[sz]ed|permitted)\b|no (?:access|permission) to\b|"
    r"(?:connection|disk|i/o|network|runtime|server) error\W*(?:\n|$)|failed [\w./-]{1,80}::",
    # Refusals by validation
    r"\d+ validation errors?\b|(?:\w+ )?validation (?:error|failed)|"
    r"(?:syntax|parse|parsing|schema) errors?\b(?!\s*:?\s*(?:0|none)\b)|"
    r"invalid (?:[\w'`\"-]+ ){0,3}(?:api key|argument|arguments|command|credentials|format|id|input|json|key|parameter|"
    r"path|query|request|syntax|token|url|value)s?\b|missing required |unknown (?:command|function|method|tool)\b",
    r"(?:your|the) (?:[\w-]+ ){1,4}(?:has|have) (?:introduced|produced|caused) (?:[\w-]+ ){0,2}(?:syntax )?errors?",
    r"(?:the )?(?:command|file|function|method|module|path|tool) (?:[\w./'`\"-]{1,80} )?"
    r"(?:does not exist|doesn't exist|is not defined|(?:was )?not found)\b|"
    r"no (?:such (?:file|tool|command|module)|replacement was|module named)",
    # Shells and programs
    r"curl: \(\d+\)|exception in thread |make(?:\[\d+\])?: \*\*\*|panic: |segmentation fault\b|"
    rf"{_SHELLS}: [^\n]{{0,160}}?(?:not found|denied|no such file)|[\w./-]{{1,60}}: (?:[^\n:]{{1,100}}: ){{0,2}}"
    r"(?:command not found|cannot \w+|no such file|permission denied|invalid option)",
)  # fmt: skip
_FAILED: Final = re.compile(rf"[^\w<\[\u274c\u2717\u2718\u26d4]{{0,6}}(?:{'|'.join(_FAILED_HEADS)})", re.I)
#: Pieces of text of which one at least is in every text that begins so. To look for them takes a tenth of the time.
_SIGNS_OF_FAILURE: Final = (
    "err", "fail", "exception", "fatal", "wrong", "not ", "n't ", "cannot", "unable", "time", "deadline", "interrupt",
    "traceback", "unsuccessful", "blocked", "denied", "refused", "rejected", "reset", "aborted", "forbidden",
    "exceeded", "too many", "unav", "no access", "no permission",
    "unauthori", "invalid", "missing", "unknown", "no such", "no replacement", "no module",
    "validation", "http", "status", "gateway", "bad request", "conflict", "gone", "internal server", "payment req",
    "precondition", "request t", "unprocessable", "eacces", "eaddrinuse", "econn", "eexist", "eisdir", "eno", "eperm",
    "epipe", "insufficient", "violation:", "curl: (", "***", "panic: ", "segmentation",
    "\u274c", "\u2717", "\u2718", "\u26d4",
)  # fmt: skip
#: Longest notice of a service, and its beginning. A limit counts if it is told when it ends.
_NOTICE_LENGTH: Final = 600
_NOTICE: Final = re.compile(
    r"\W{0,4}(?:[^\n.?!]{0,60}\b(?:limit|usage|quota|credits?)\b[^\n.?!]{0,40}(?:[\u00b7\u2219|] ?(?:resets\b|\d{10}))"
    r"|api error\b\W{0,4}(?:\d{3}\b|\(|[a-z]+ error|connection|request|repeated|overloaded|cannot|unable)"
    r"|(?:error code|http error|error)[: ] ?(?:400|401|402|403|404|408|413|422|429|5\d\d|529)\b"
    r"|(?:anthropic|botocore|google|groq|httpx|litellm|mistralai|openai)\.[\w.]{0,80}(?:error|exception|timeout)\b"
    r"|(?:your )?credit balance is too low|invalid api key\b|prompt is too long(?:\W|$)|insufficient_quota\b"
    r"|you exceeded your current quota|(?:the )?(?:api|model|server|service) is (?:currently )?overloaded)",
    re.I,
)
_SIGNS_OF_NOTICE: Final = (
    "resets", "limit", "error", "timeout", "exception", "credit", "api key", "too long", "quota", "overloaded",
)  # fmt: skip
#: Words after a failed head which say that something else was done, and follows.
_FALLBACK: Final = re.compile(r"\binstead,? (?:here|i|it|showing|the following|we|using)\b", re.I)
#: An exit code. A return code stands at the end of a line or of a tag: prose has the word for statuses of pages.
_EXIT: Final = re.compile(
    r"\b(?:exit(?:ed)?(?: with)?(?: unix)?[ _-]?(?:exit[ _-]?)?(?:code|status)|non-zero exit status)"
    r"\W{0,3}(?:was |of )?(-?\d{1,10})\b"
    r"|\breturn[ _]?code ?[:=>] ?(-?\d{1,10})(?=\W{0,3}(?:\n|\Z)|</)",
    re.I,
)
#: The words of a runner of code before those of the code.
_RUNNER: Final = re.compile(
    r"[^\n]{0,60}?\bexit[ _-]?(?:code|status)\W{0,3}\d+[^\n]{0,60}(?:\n|$)|(?:its |code )?output(?: was)?: *\n?"
    r"|<returncode>-?\d{1,10}</returncode>\s*|<output>\s*",
    re.I,
)
_TRACEBACK: Final = re.compile(r"^\W{0,4}traceback \(most recent call last\)", re.I | re.M)
_RAISED: Final = re.compile(
    r"^[A-Za-z_][\w.]{0,100}(?:Error|Exception|Interrupt|Exit|Warning|Timeout)\b[^\n]{0,400}", re.M
)
_THINGS: Final = (
    r"(?:answers?|code(?: block)?|content|data|documents?|entr(?:y|ies)|events?|files?|hits?|images?|"
    r"information|items?|lines?|links?|match(?:es)?|objects?|orders?|output|pages?|products?|"
    r"records?|results?|rows?|tables?|text|users?|values?)"
)
_NOTHING: Final = re.compile(
    r"(?!\W*[^\n:]{0,60}?\b(?:conflict|error|failure|issue|problem|violation|warning)s?\b)"
    rf"\W{{0,4}}(?:\[\s*\]|\{{\s*\}}|none|null|nil|n/a|empty|undefined|nothing(?: (?:found|matched|returned|to \w+))?"
    rf"|(?:there (?:is|are|was|were) )?(?:no|0|zero) (?:[\w-]+ ){{0,4}}?{_THINGS}\b[^\n]{{0,200}}"
    rf"|(?:[\w'`\"-]+ ){{0,6}}(?:was |were |is |are )?not found"
    rf"|(?:did not|didn't|could not|couldn't) find any\b[^\n]{{0,120}}"
    rf"|[^\n:]{{3,60}}:\s*(?:none|null|nan|\[\s*\]|\{{\s*\}}|))\W{{0,4}}",
    re.I,
)
#: A search that found nothing, and says what else there is.
_OTHERS: Final = re.compile(
    r"\W{0,4}(?:sorry,? )?(?:i |we )?(?:can\s?not|can't|could not|couldn't|did not|didn't) find [^\n]{1,240}?"
    r"(?:similar|did you mean|perhaps you meant|closest match(?:es)?|suggestions)\b",
    re.I,
)


def verdict_of(marked: object, results: object) -> Verdict | None:
    """
    Return the verdict on a call of a tool that ended without an exception, None if there is none.

    Args:
        marked: Member ``failed`` of the metadata of its end, by which the tool itself decides: True or the words for a
            failure, False for none.
        results: Its results.
    """
    said = verdict(results)
    if marked is False:
        return said if said == _EMPTY else None
    if marked is True or (isinstance(marked, str) and marked):
        words = marked if isinstance(marked, str) else (said.words if said else "") or _told(results)
        return Verdict("failed", _words(words) or "failed")
    return said


def verdict(result: object, levels: int = _LEVELS) -> Verdict | None:
    """
    Return what the result of a tool says of its call, None if it says nothing.

    Args:
        result: Decoded JSON of any kind. None says nothing: many tools return nothing.
        levels: Levels of results in it that are looked at.
    """
    if not levels:
        return None
    if isinstance(result, str):
        return _of_text(result, levels)
    if isinstance(result, dict):
        return _of_members(result, levels) if result else _EMPTY
    if isinstance(result, list):
        return _of_list(result, levels) if result else _EMPTY
    return None


def _of_list(items: list[Any], levels: int) -> Verdict | None:
    """Return the verdict of a content of text blocks; any other list is a result like any other."""
    blocks = dicts_of(items[:_BLOCKS])
    if len(blocks) < len(items[:_BLOCKS]) or any(block.get("type") != "text" for block in blocks):
        return None
    return verdict("\n".join(text_of(block.get("text"))[:_JSON] for block in blocks)[:_JSON], levels - 1)


def _of_members(found: Mapping[str, Any], levels: int) -> Verdict | None:
    if not _SIGNS.isdisjoint(found):
        code = next((found[name] for name in _CODES if type(found.get(name)) is int), None)
        stderr = text_of(found.get("stderr"))[:_HEAD].strip()
        if (
            any(found.get(name) is True for name in _TRUE_IF_FAILED)
            or any(found.get(name) is False or found.get(name) == "false" for name in _TRUE_IF_OK)
            or code
            or any(_is_error(found.get(name)) for name in _ERRORS)
            or any(_is_bad(found.get(name), found) for name in _STATUSES)
            or (stderr and code is None and not text_of(found.get("stdout"))[:_HEAD].strip())
        ):
            return Verdict("failed", _told(found) or (f"exit code {code}" if code else "failed"))
        if stderr or any(found.get(name) is True for name in _TRUE_IF_OK):
            return None
    refusals = dicts_of(found.get("detail"))
    is_told = found.get("type") == "error" and len(found) <= 3 and any(name in found for name in _WORDS)
    if is_told or any("loc" in one and "msg" in one for one in refusals[:1]):
        return Verdict("failed", _told(found) or "failed")
    inner = [name for name in found if name in _INNER]
    if len(inner) == 1 and all(name in _BESIDE or name == inner[0] for name in found):
        return verdict(found[inner[0]], levels - 1)
    return None


def _is_error(error: object) -> bool:
    """Return True if a member of that name tells of an error. A number may be that of a measurement."""
    if isinstance(error, str):
        return error[:20].strip().lower() not in _NO_ERROR
    return error is True or (isinstance(error, (dict, list)) and bool(error))


def _is_bad(status: object, found: Mapping[str, Any]) -> bool:
    reason = any(isinstance(found.get(name), str) for name in _WORDS)
    if isinstance(status, str):
        word = status[:20].strip().lower()
        return word in _BAD or (reason and word in _BAD_WITH_REASON)
    told = reason or "body" in found or len(found) <= 2
    return type(status) is int and 400 <= status < 600 and told


def _told(results: object) -> str:
    """Return the words in which a result tells of a failure, "" if it has none."""
    if isinstance(results, str):
        return _words(results)
    for name in _WORDS if isinstance(results, dict) else ():
        if words := _first_text(get(results, name)):
            return _words(words)
    for name in (*_INNER, "body") if isinstance(results, dict) else ():
        if words := _first_text(get(results, name)):
            return _words(words)
    return ""


def _first_text(thing: object) -> str:
    """Return a text, or the first one in a list or in the usual members of an object; "" if there is none."""
    for _ in range(_LEVELS):
        if isinstance(thing, list):
            thing = thing[0] if thing else None
        elif isinstance(thing, dict):
            thing = next(
                (thing[name] for name in ("message", "text", *_WORDS, "type") if thing.get(name)), None
            )
        else:
            break
    return thing if isinstance(thing, str) and thing[:_HEAD].strip() else ""


def _of_text(text: str, levels: int) -> Verdict | None:
    plain = text.strip()
    if not plain:
        return _EMPTY
    if plain[0] in "{[" and plain[-1] in "}]" and len(plain) <= _JSON:
        try:
            return verdict(msgspec.json.decode(plain), levels - 1)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            pass
    body, tail = without_colours(plain[:_HEAD]).lstrip(), without_colours(plain[-_TAIL:])
    codes: list[int] = []
    ends = (body[:_SHORT], tail[-_SHORT:])
    if any("exit" in end or "return" in end for end in map(str.lower, ends)):
        codes = [int(found[1] or found[2]) for end in ends for found in _EXIT.finditer(end)]
    while (header := _RUNNER.match(body)) and header.end():
        body = body[header.end() :].lstrip()
    body = body.partition("</output>")[0].rstrip() if "<output>" in plain[:_HEAD] else body
    if any(codes):
        return Verdict("failed", _raised(tail) or _words(body) or f"exit code {next(filter(None, codes))}")
    traced = _TRACEBACK.match(body) or (not codes and "raceback" in tail and _TRACEBACK.search(tail))
    if traced and (raised := _raised(tail)):
        return Verdict("failed", raised)
    if any(map(body.lower().__contains__, _SIGNS_OF_FAILURE)) and _says_so(body):
        return _EMPTY if _OTHERS.match(body) else Verdict("failed", _words(body))
    if not body or (len(plain) <= _SHORT and _NOTHING.fullmatch(body)):
        return _EMPTY
    return None


def _says_so(body: str) -> bool:
    """Return True if a text begins as one of a failure, and does not go on with what came of another way."""
    return bool(_FAILED.match(body)) and not _FALLBACK.search(body[:_SHORT].partition("\n")[0])


def service_notice(text: str) -> str:
    """
    Return what a service, or the program around a model, says in place of an answer; "" of an answer.

    It tells that a limit of the account is used up, that a request was refused, or the words of an exception. Agents
    that know no other way hand it on as what the model said.
    """
    if len(text) > _NOTICE_LENGTH or not any(sign in text.lower() for sign in _SIGNS_OF_NOTICE):
        return ""
    return _words(text) if _NOTICE.match(text) else ""


def last_traceback(text: str) -> str:
    """
    Return the exception of a traceback that a text begins or ends with, "" if there is none.

    One in a block of code is quoted, and none.
    """
    if "raceback" not in text:
        return ""
    for part, within in ((text[:_LONG], _HEAD), (text[-_TAIL:], _TAIL)):
        found = _TRACEBACK.search(part, 0, within)
        if found and "```" not in part[: found.end()] and (raised := _raised(part[found.start() :])):
            return raised
    return ""


def _raised(tail: str) -> str:
    """Return the last line that names an exception, "" if there is none."""
    lines: Iterable[str] = _RAISED.findall(tail)
    return _words([*lines][-1]) if lines else ""


def _words(text: str) -> str:
    return excerpt(without_colours(text[: 4 * WORDS]), WORDS)
