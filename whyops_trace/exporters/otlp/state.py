"""
Open calls and traces on disk, so that a call whose request was taken is told after a crash, too.

They are in the SQLite file ``otlp.db`` of the home. If that cannot be written, a warning is logged, and they are in
memory only.
"""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec

from whyops_trace.exporters._state_file import StateFile
from whyops_trace.exporters.otlp.calls import OpenCall, OpenTrace
from whyops_trace.exporters.otlp.reading import WHOLE, Key, Reader

#: Seconds that a row is kept: 30 days, long after the journal has forgotten its records.
LIFETIME: Final = 30 * 24 * 3600

_SCHEMA: Final = """
CREATE TABLE open (
    place TEXT NOT NULL,
    process TEXT NOT NULL,
    key BLOB NOT NULL,
    body BLOB NOT NULL,
    ended INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (place, process, key)
) WITHOUT ROWID;
CREATE TABLE gone (
    place TEXT NOT NULL,
    process TEXT NOT NULL,
    PRIMARY KEY (place, process)
) WITHOUT ROWID;
"""

_encode: Final = msgspec.msgpack.Encoder().encode
_key_decoder: Final = msgspec.msgpack.Decoder(tuple[str, str, int])
_call_decoder: Final = msgspec.msgpack.Decoder(OpenCall)
_trace_decoder: Final = msgspec.msgpack.Decoder(OpenTrace)


class State:
    """
    The file, as far as it is about one destination.

    Args:
        path: The file.
        place: The name of the destination, which tells it from others in the same file.
    """

    def __init__(self, path: str | os.PathLike[str], place: str) -> None:
        self._file = StateFile(
            path,
            _SCHEMA,
            without="Calls that are open are kept in memory only, and are not exported if the process dies",
        )
        self._place = place
        #: Keys of the rows of each process.
        self._stored: dict[str, set[Key]] = {}
        self._has_pruned = False

    def save(self, reader: Reader, *, forget: bool) -> None:
        """
        Write what has changed in a reader.

        A call that has ended stays until its record has passed the journal: after a crash before that, the record comes
        again.

        Args:
            reader: The reader.
            forget: True to delete what had ended by the last time: its records have passed.
        """
        stored = self._stored.setdefault(reader.process, set())
        changed, reader.changed = reader.changed, set()
        writes, ends = [], []
        for key in changed:
            thing = reader.traces.get(key[:2]) if key[2] == WHOLE else reader.calls.get(key)
            if thing is not None:
                writes.append((self._place, reader.process, _encode(key), _encode(thing), int(time.time())))
                stored.add(key)
            elif key in stored:
                ends.append((self._place, reader.process, _encode(key)))
                stored.discard(key)
        if not (writes or ends):
            return
        passed = [(self._place, reader.process)] if forget else []
        old = [] if self._has_pruned else [(int(time.time()) - LIFETIME,)]
        if self._file.write(
            ("DELETE FROM open WHERE place = ? AND process = ? AND ended", passed),
            ("INSERT OR REPLACE INTO open VALUES (?, ?, ?, ?, 0, ?)", writes),
            ("UPDATE open SET ended = 1 WHERE place = ? AND process = ? AND key = ?", ends),
            ("DELETE FROM open WHERE made_at < ?", old),
        ):
            self._has_pruned = True

    def load(self, reader: Reader) -> None:
        """Give a reader the open calls and traces of its process that an earlier one has kept."""
        for key, body, ended in self._file.rows(
            "SELECT key, body, ended FROM open WHERE place = ? AND process = ?", self._place, reader.process
        ):
            place = _key_decoder.decode(key)
            self._stored.setdefault(reader.process, set()).add(place)
            if ended:
                continue
            if place[2] == WHOLE:
                reader.traces[place[:2]] = _trace_decoder.decode(body)
            else:
                reader.calls[place] = _call_decoder.decode(body)

    def find(self, process: str, key: Key) -> OpenCall | None:
        """Return a call of a process, be it ended, None if there is none."""
        if key not in self._stored.get(process, ()) or key[2] == WHOLE:
            return None
        rows = self._file.rows(
            "SELECT body FROM open WHERE place = ? AND process = ? AND key = ?",
            self._place,
            process,
            _encode(key),
        )
        return _call_decoder.decode(rows[0][0]) if rows else None

    def forget(self, process: str) -> None:
        """Delete all of a process that is gone."""
        if not self._stored.pop(process, None) and not self._file.rows(
            "SELECT 1 FROM gone WHERE place = ? AND process = ?", self._place, process
        ):
            return
        one = [(self._place, process)]
        self._file.write(
            ("DELETE FROM open WHERE place = ? AND process = ?", one),
            ("DELETE FROM gone WHERE place = ? AND process = ?", one),
        )

    def note_gone(self, process: str) -> None:
        """Note that a process is gone though not all of it is told. A later one does it."""
        if self._stored.get(process):
            self._file.write(("INSERT OR REPLACE INTO gone VALUES (?, ?)", [(self._place, process)]))

    def gone(self) -> list[str]:
        """Return the processes of :meth:`note_gone`."""
        return [
            process for (process,) in self._file.rows("SELECT process FROM gone WHERE place = ?", self._place)
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
