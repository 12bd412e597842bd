"""Answers that ask the user for something, and so end nothing: the run waits for a reply."""

from __future__ import annotations

import re
from typing import Final

#: Characters of the end of an answer that are looked at, and sentences of it if tools were called.
_READ: Final = 1_500
_LAST: Final = 2
_LINK: Final = re.compile(r"\[[^\[\]\n]{0,300}\]\([^()\s]{1,500}\)")
_SENTENCES: Final = re.compile(r"(?<=[.!?])\s+|\n+")
#: What an answer asks for: something from the user, or a reply.
_REQUEST: Final = re.compile(
    r"\b(?:please|kindly|(?:could|can) you)\b[^.?!\n]{0,80}?"
    r"\b(?:attach|confirm|enter|give|paste|provide|reply|respond|send|share|specify|tell|upload)\b"
    r"|\b(?:what|which|when|where|who|whose|how (?:many|much|long))\b[^.?!\n]{0,200}\?\W*\Z"
    r"|\b(?:you|your|i|me|we)\b[^.?!\n]{0,200}\?\W*\Z",
    re.I,
)
#: Words with which an answer only offers more, says goodbye, or asks for what it can do without.
_OFFER: Final = re.compile(
    r"\b(?:any(?:one|thing| other| more| further| questions)|else|further|feel free|if you|in case|let me know if|"
    r"may (?:also )?|optional(?:ly)?|help(?: you)? with\?)",
    re.I,
)


def asks_user(answer: str, *, anywhere: bool = False) -> bool:
    """
    Tell whether an answer ends with something that the user has to say first.

    Args:
        answer: The answer.
        anywhere: True to look at more than its last two sentences, for one that nothing was done for.
    """
    sentences = [one for one in _SENTENCES.split(_LINK.sub("", answer[-_READ:]).strip()) if one.strip()]
    considered = sentences if anywhere else sentences[-_LAST:]
    return any(_REQUEST.search(one) and not _OFFER.search(one) for one in considered)
