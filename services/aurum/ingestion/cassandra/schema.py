"""The tables of the store in Cassandra, and their versions.

A batch is one row of `batches`, in the partition of its slot of time. Merging moves the readings of a slot into blocks
of many series, those of several blocks into larger blocks, and those of long series into segments. A partition of
blocks holds a period of a group of machines, a partition of segments one UTC day of one series. All writes can be
repeated safely: readings that are in several places have the same rank everywhere. Rows are deleted after what replaces
them is durable.

A segment is written by its key: the time of its first reading, and its highest rank. In the key of a merged segment the
source also has a digest of the parts.

Versions before 4 wrote a row of segments for each series of a batch, and the latest readings of each machine into
`latest` and `changes`. These rows are still read.
"""

import hashlib
import zlib
from collections.abc import Iterable

from aurum.ingestion.store import EVENT_MEMORY_US
from aurum.runtime.time_units import HOUR_US

BUCKETS = 64  # partitions over which the machines are spread
BLOCK = 10_000  # sequences of a source per partition
CHANGES_SECONDS = 2  # of changes per partition
CHANGES_TTL = 60  # seconds
SLOT_SECONDS = 5  # of batches per slot
SLOT_BUCKETS = 8  # partitions over which the sources of a slot are spread
GROUPS = 128  # partitions over which the machines of a period are spread
PERIOD_US = 4 * HOUR_US  # of blocks per partition; a UTC day consists of whole periods
CLAIM_TTL = 30  # seconds
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
        f"WITH default_time_to_live = {CHANGES_TTL} AND gc_grace_seconds = 600",
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
    4: [
        # The slots that may have batches
        "CREATE TABLE IF NOT EXISTS slots (id int, slot bigint, PRIMARY KEY (id, slot)) WITH gc_grace_seconds = 600",
        "CREATE TABLE IF NOT EXISTS batches (slot bigint, bucket int, source text, sequence bigint, source_us bigint, "
        "machines blob, data blob, PRIMARY KEY ((slot, bucket), source, sequence)) "
        # Rows live for seconds. Those of a window and their deletions are compacted away together
        "WITH gc_grace_seconds = 3600 AND compression = {'enabled': 'false'} AND compaction = "
        "{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'MINUTES', 'compaction_window_size': 10, "
        "'unchecked_tombstone_compaction': 'true', 'tombstone_compaction_interval': 3600}",
        "CREATE TABLE IF NOT EXISTS received_ranges (source text, block bigint, first bigint, last bigint, "
        f"PRIMARY KEY ((source, block), first, last)) WITH default_time_to_live = {SOURCE_TTL}",
        # The periods of groups that may have blocks
        "CREATE TABLE IF NOT EXISTS periods (machine_group int, period int, PRIMARY KEY (machine_group, period))",
        "CREATE TABLE IF NOT EXISTS blocks (machine_group int, period int, level int, id text, chunk int, "
        "start_us bigint, end_us bigint, count int, members blob, names blob, head blob, data blob, "
        "PRIMARY KEY ((machine_group, period), level, id, chunk)) "
        "WITH gc_grace_seconds = 3600 AND compression = {'enabled': 'false'}",
        "CREATE TABLE IF NOT EXISTS summaries (machine_group int, id text, data blob, PRIMARY KEY (machine_group, id)) "
        "WITH gc_grace_seconds = 3600 AND compression = {'enabled': 'false'}",
        "CREATE TABLE IF NOT EXISTS claims (name text PRIMARY KEY, replica text) "
        f"WITH default_time_to_live = {CLAIM_TTL} AND gc_grace_seconds = 600",
    ],
    5: [
        # The events of the plant as a whole that concern a machine
        "CREATE TABLE IF NOT EXISTS events_about (kind text, about text, at_us bigint, id text, data blob, "
        "PRIMARY KEY ((kind, about), at_us, id)) "
        f"WITH CLUSTERING ORDER BY (at_us DESC, id DESC) AND default_time_to_live = {EVENT_TTL}",
    ],
    6: [
        # From which gateway the readings of a machine come
        "CREATE TABLE IF NOT EXISTS machine_gateways (bucket int, machine_id text, gateway text, "
        "PRIMARY KEY (bucket, machine_id))",
    ],
}
VERSION = max(STEPS)
JOURNAL_SINCE = 2  # version
EVENTS_ABOUT_SINCE = 5  # version
EARLIER_EVENTS = "SELECT kind, machine_id, at_us, id, data FROM events"  # from before there were further tables of them

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
    "set_gateway": "INSERT INTO machine_gateways (bucket, machine_id, gateway) VALUES (?, ?, ?)",
    "gateways": "SELECT machine_id, gateway FROM machine_gateways WHERE bucket = ?",
    "latest": "SELECT machine_id, first_us, sensors, ranked FROM latest WHERE bucket = ?",
    "latest_of": "SELECT machine_id, first_us, sensors, ranked FROM latest WHERE bucket = ? AND machine_id = ?",
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
    "add_received": "INSERT INTO received_ranges (source, block, first, last) VALUES (?, ?, ?, ?)",
    "received_ranges": "SELECT first, last FROM received_ranges WHERE source = ? AND block = ?",
    "received": "SELECT sequence FROM received WHERE source = ? AND block = ?",
    "add_event": "INSERT INTO events (kind, machine_id, at_us, id, data) VALUES (?, ?, ?, ?, ?) USING TTL ?",
    "add_to_journal": "INSERT INTO journal (kind, number, at_us, id, data) VALUES (?, ?, ?, ?, ?)",
    "journal": "SELECT kind, at_us, id, data, number FROM journal WHERE kind = ? AND number > ? AND number < ? LIMIT ?",
    "events": "SELECT kind, machine_id, at_us, id, data FROM events WHERE kind = ? AND machine_id = ? "
    "AND (at_us) >= (?) AND (at_us, id) < (?, ?) LIMIT ?",
    "add_event_about": "INSERT INTO events_about (kind, about, at_us, id, data) VALUES (?, ?, ?, ?, ?) USING TTL ?",
    "events_about": "SELECT kind, at_us, id, data FROM events_about WHERE kind = ? AND about = ? "
    "AND (at_us) >= (?) AND (at_us, id) < (?, ?) LIMIT ?",
    "add_slot": "INSERT INTO slots (id, slot) VALUES (0, ?)",
    "slots": "SELECT slot FROM slots WHERE id = 0",
    "drop_slot": "DELETE FROM slots WHERE id = 0 AND slot = ?",
    "add_batch": "INSERT INTO batches (slot, bucket, source, sequence, source_us, machines, data) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)",
    "batch_keys": "SELECT source, sequence FROM batches WHERE slot = ? AND bucket = ?",
    "batch_members": "SELECT source, sequence, machines FROM batches WHERE slot = ? AND bucket = ?",
    "batch": "SELECT source, sequence, source_us, data FROM batches "
    "WHERE slot = ? AND bucket = ? AND source = ? AND sequence = ?",
    "drop_batch": "DELETE FROM batches WHERE slot = ? AND bucket = ? AND source = ? AND sequence = ?",
    "add_period": "INSERT INTO periods (machine_group, period) VALUES (?, ?)",
    "periods": "SELECT period FROM periods WHERE machine_group = ? AND period >= ? AND period <= ?",
    "drop_period": "DELETE FROM periods USING TIMESTAMP ? WHERE machine_group = ? AND period = ?",
    "add_block": "INSERT INTO blocks (machine_group, period, level, id, chunk, start_us, end_us, count, members, "
    "names, head, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?",
    "block_keys": "SELECT level, id, chunk, start_us, end_us, count, members FROM blocks "
    "WHERE machine_group = ? AND period = ?",
    "block": "SELECT names, head, data FROM blocks "
    "WHERE machine_group = ? AND period = ? AND level = ? AND id = ? AND chunk = ?",
    "drop_block": "DELETE FROM blocks WHERE machine_group = ? AND period = ? AND level = ? AND id = ? AND chunk = ?",
    "add_summary": "INSERT INTO summaries (machine_group, id, data) VALUES (?, ?, ?)",
    "summaries": "SELECT id, data FROM summaries WHERE machine_group = ?",
    "drop_summary": "DELETE FROM summaries WHERE machine_group = ? AND id = ?",
    "claim": "INSERT INTO claims (name, replica) VALUES (?, ?) IF NOT EXISTS",
}


def group_of(machine_id: str) -> int:
    """Returns the group of a machine."""
    return machine_hash(machine_id) % GROUPS


def machine_hash(machine_id: str) -> int:
    """Returns what stands for a machine in the columns that say which machines a row has, a number of 32 bits."""
    return zlib.crc32(machine_id.encode())


def slot_bucket(source_id: str) -> int:
    """Returns the bucket of a source within each slot."""
    return zlib.crc32(source_id.encode()) % SLOT_BUCKETS
