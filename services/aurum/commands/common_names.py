"""Names that columns of tables commonly have, also those of public data sets. The first ones are preferred.

`..._KEYS` are compared with `key_of` a name; the others are names, of which the keys are compared too.
"""

from aurum.commands.table_names import key_of
from aurum.readings.history import AXES, FAULT, LABELS

UNIT_NAMES = (
    *("machine_id", "machine", "unit_id", "unit_number", "unit_nr", "unit", "engine_id", "engine", "asset_id", "asset"),
    *("equipment_id", "equipment", "device_id", "device", "serial_number", "serial", "product_id", "turbine_id"),
    *("turbine", "battery_id", "battery", "cell_id", "bearing_id", "bearing", "pump_id", "motor_id", "tool_id"),
    *("vehicle_id", "truck_id", "robot_id", "disk_id", "case", "id"),
)
TIME_NAMES = ("timestamp", "datetime", "time_stamp", "date_time", "timestamp_utc", "time", "date", "ds", "ts")
LIFE_NAMES = (
    *AXES,
    *("cycle_index", "cycle_number", "cycle_no", "cycle_count", "time_cycles", "flight_cycle", "flight_cycles"),
    *("running_hours", "runtime_hours", "operation_hours", "engine_hours"),
)
RUN_NAMES = ("run_number", "run_id", "life_number", "life_id", "run_no", "life_no")
TYPE_NAMES = ("machine_type", "asset_type", "equipment_type")
FAILURE_NAMES = (FAULT, "machine_failure", "failure", "failed", "fail", "is_failure", "breakdown", "label", "target")
STATE_NAMES = ("machine_status", "machine_state", "status", "state", "condition")
ANOMALY_NAMES = ("anomaly", "is_anomaly")
LEFT_NAMES = (
    *("rul", "remaining_useful_life", "time_to_failure", "ttf", "remaining_life", "remaining_cycles"),
    *("rul_cycles", "rul_hours", "cycles_to_failure"),
)
LABEL_KEYS = frozenset(
    key_of(name)
    for name in (
        *(*LABELS, *LEFT_NAMES, "failure_type", "failure_mode", "fault_type", "fault_code", "machine_failure"),
        *("label_bnc", "label_mcc", "label1", "label2", "is_anomaly", "is_failure", "max_cycle", "max_cycles"),
    )
)
LABELS_OF_SETS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    # AI4I 2020: the modes of failure beside the failure
    (frozenset({"twf", "hdf", "pwf", "osf", "rnf"}), frozenset({"twf", "hdf", "pwf", "osf", "rnf"})),
    # NASA's milling set: the wear that is to be predicted
    (frozenset({"vb", "smcac", "smcdc"}), frozenset({"vb"})),
)
ROW_NUMBER_KEYS = frozenset(
    {"index", "row", "rownumber", "rownum", "rowid", "udi", "unnamed0", "no", "nr", "srno", "id"}
)
