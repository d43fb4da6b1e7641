"""The tables of the store in Cassandra, and their versions.

A partition of segments holds one UTC day of one series. All writes can be repeated safely. A segment is written by
its key: the time of its first reading, and its highest rank. In the key of a merged segment the source also has a
digest of the parts. The latest values and the first reading of a machine have write times derived from the readings'
own times, so that the newest, or the earliest, reading of several replicas counts.
"""

import hashlib
from collections.abc import Iterable

from aurum.ingestion.store import EVENT_MEMORY_US

BUCKETS = 64  # partitions over which the machines are spread
BLOCK = 10_000  # sequences of a source per partition
SLOT_SECONDS = 2  # of changes per partition
SLOT_TTL = 60  # seconds
SOURCE_TTL = 30 * 86_400  # seconds within which a source may resend
EVENT_TTL = EVENT_MEMORY_US // 1_000_000  # seconds

VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema_version (id int PRIMARY KEY, version int)"

STEPS: dict[int, list[str]] = {
    1: [
        "CREATE TABLE IF NOT EXISTS machines (bucket int, machine_id text, machine_type text, site text, "
        "registered_us bigint, request_id text, PRIMARY KEY (bucket, machine_id))",
        "CREATE TABLE IF NOT EXISTS latest (bucket int, machine_id text, first_us bigint, "
        "sensors map<text, frozen<tuple<bigint, double>>>, PRIMARY KEY (bucket, machine_id))",
        "CREATE TABLE IF NOT EXISTS changes (slot bigint, replica text, machine_id text, registered boolean, "
        "sensors map<text, frozen<tuple<bigint, double>>>, PRIMARY KEY (slot, replica, machine_id)) "
        f"WITH default_time_to_live = {SLOT_TTL} AND gc_grace_seconds = 600",
        "CREATE TABLE IF NOT EXISTS days (machine_id text, sensor text, day int, "
        "PRIMARY KEY ((machine_id, sensor), day))",
        "CREATE TABLE IF NOT EXISTS segments (machine_id text, sensor text, day int, start_us bigint, "
        "source_us bigint, source text, sequence bigint, end_us bigint, count int, data blob, "
        "PRIMARY KEY ((machine_id, sensor, day), start_us, source_us, source, sequence)) "
        # Merging causes many deletions. A deleted segment that reappears does no harm.
        "WITH gc_grace_seconds = 3600 AND compression = {'enabled': 'false'}",
        "CREATE TABLE IF NOT EXISTS sources (source text PRIMARY KEY, first_us bigint) "
        f"WITH default_time_to_live = {2 * SOURCE_TTL}",
        "CREATE TABLE IF NOT EXISTS received (source text, block bigint, sequence bigint, "
        f"PRIMARY KEY ((source, block), sequence)) WITH default_time_to_live = {SOURCE_TTL}",
        "CREATE TABLE IF NOT EXISTS events (kind text, machine_id text, at_us bigint, id text, data blob, "
        "PRIMARY KEY ((kind, machine_id), at_us, id)) "
        f"WITH CLUSTERING ORDER BY (at_us DESC, id DESC) AND default_time_to_live = {EVENT_TTL}",
    ],
    2: [
        # A separate table, because adding a column twice fails, and two replicas may migrate at the same time
        "CREATE TABLE IF NOT EXISTS source_owners (source text PRIMARY KEY, owner text) "
        f"WITH default_time_to_live = {2 * SOURCE_TTL}",
        # The events of the plant as a whole, in the order of recording
        "CREATE TABLE IF NOT EXISTS journal (kind text, number bigint, at_us bigint, id text, data blob, "
        "PRIMARY KEY (kind, number, at_us, id)) "
        f"WITH CLUSTERING ORDER BY (number DESC, at_us DESC, id DESC) AND default_time_to_live = {EVENT_TTL}",
    ],
    3: [
        # Latest readings with their ranks, see aurum.ingestion.cassandra.latest. If two replicas add a column at the
        # same time, one of them gets an error
        "ALTER TABLE latest ADD ranked map<text, blob>",
        "ALTER TABLE changes ADD ranked map<text, blob>",
    ],
}
VERSION = max(STEPS)
JOURNAL_SINCE = 2  # version
EARLIER_EVENTS = "SELECT kind, machine_id, at_us, id, data FROM events"  # from before there was a journal

_MERGED = "#"  # separates source and digest; it is in no id of a source
_DIGEST = 16  # characters


def merged_source(source: str, parts: Iterable[tuple[object, ...]]) -> str:
    """Returns what stands for the source in the key of a segment that was merged from `parts`, given by their keys."""
    digest = hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()
    return f"{source}{_MERGED}{digest[:_DIGEST]}"


def source_of(stated: str) -> str:
    """Returns the source by what stands for it in the key of a segment."""
    return stated.partition(_MERGED)[0]


STATEMENTS = {
    # Keeps what a registration has set
    "add_machine": "INSERT INTO machines (bucket, machine_id) VALUES (?, ?)",
    "register": "UPDATE machines SET machine_type = ?, site = ?, registered_us = ?, request_id = ? "
    "WHERE bucket = ? AND machine_id = ? IF machine_type = null",
    "machine": "SELECT machine_id, machine_type, site, registered_us, request_id FROM machines "
    "WHERE bucket = ? AND machine_id = ?",
    "machines": "SELECT machine_id, machine_type, site, registered_us, request_id FROM machines WHERE bucket = ?",
    "set_latest": "UPDATE latest USING TIMESTAMP ? SET sensors = sensors + ?, ranked = ranked + ? "
    "WHERE bucket = ? AND machine_id = ?",
    "set_first": "UPDATE latest USING TIMESTAMP ? SET first_us = ? WHERE bucket = ? AND machine_id = ?",
    "latest": "SELECT machine_id, first_us, sensors, ranked FROM latest WHERE bucket = ?",
    "latest_of": "SELECT machine_id, first_us, sensors, ranked FROM latest WHERE bucket = ? AND machine_id = ?",
    "set_change": "UPDATE changes USING TIMESTAMP ? SET sensors = sensors + ?, ranked = ranked + ? "
    "WHERE slot = ? AND replica = ? AND machine_id = ?",
    "set_registered": "INSERT INTO changes (slot, replica, machine_id, registered) VALUES (?, ?, ?, true)",
    "changes": "SELECT replica, machine_id, registered, sensors, ranked FROM changes WHERE slot = ?",
    "add_day": "INSERT INTO days (machine_id, sensor, day) VALUES (?, ?, ?) USING TTL ?",
    "days": "SELECT day FROM days WHERE machine_id = ? AND sensor = ?",
    "add_segment": "INSERT INTO segments (machine_id, sensor, day, start_us, source_us, source, sequence, end_us, "
    "count, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?",
    "segment_keys": "SELECT start_us, source_us, source, sequence, end_us, count FROM segments "
    "WHERE machine_id = ? AND sensor = ? AND day = ?",
    "segment": "SELECT data FROM segments WHERE machine_id = ? AND sensor = ? AND day = ? AND start_us = ? "
    "AND source_us = ? AND source = ? AND sequence = ?",
    "segments_between": "SELECT start_us, source_us, source, sequence, data FROM segments "
    "WHERE machine_id = ? AND sensor = ? AND day = ? AND start_us >= ? AND start_us <= ?",
    "newest_start": "SELECT start_us FROM segments WHERE machine_id = ? AND sensor = ? AND day = ? AND start_us < ? "
    "ORDER BY start_us DESC LIMIT 1",
    "drop_segment": "DELETE FROM segments WHERE machine_id = ? AND sensor = ? AND day = ? AND start_us = ? "
    "AND source_us = ? AND source = ? AND sequence = ?",
    "add_source": "INSERT INTO sources (source, first_us) VALUES (?, ?) IF NOT EXISTS",
    "keep_source": "INSERT INTO sources (source, first_us) VALUES (?, ?)",
    "source": "SELECT first_us FROM sources WHERE source = ?",
    "add_owner": "INSERT INTO source_owners (source, owner) VALUES (?, ?) IF NOT EXISTS",
    "keep_owner": "INSERT INTO source_owners (source, owner) VALUES (?, ?)",
    "owner": "SELECT owner FROM source_owners WHERE source = ?",
    "add_received": "INSERT INTO received (source, block, sequence) VALUES (?, ?, ?)",
    "received": "SELECT sequence FROM received WHERE source = ? AND block = ?",
    "add_event": "INSERT INTO events (kind, machine_id, at_us, id, data) VALUES (?, ?, ?, ?, ?) USING TTL ?",
    "add_to_journal": "INSERT INTO journal (kind, number, at_us, id, data) VALUES (?, ?, ?, ?, ?)",
    "journal": "SELECT kind, at_us, id, data, number FROM journal WHERE kind = ? AND number > ? AND number < ? LIMIT ?",
    "events": "SELECT kind, machine_id, at_us, id, data FROM events WHERE kind = ? AND machine_id = ? "
    "AND (at_us) >= (?) AND (at_us, id) < (?, ?) LIMIT ?",
}
